export function Shell() {
  return <main>indrnn</main>;
}

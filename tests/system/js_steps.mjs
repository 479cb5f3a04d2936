/** Takes steps and a generate, and prints a line for each answer: node js_steps.mjs URL OPTIONS. */
import { connect } from "indrnn-client";

const { pieces, wish, ...options } = JSON.parse(process.argv[3]);
const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);
const links = [];
const session = await connect(process.argv[2], { model: "chars", ...options, onLink: ({ state }) => links.push(state) });
for (const piece of pieces) {
  const { step, position, chars } = await session.step(piece);
  say({ step, position, logprobs: chars.map((c) => c.logprob) });
}
const generation = session.generate(wish);
for await (const { char, logprob } of generation) say({ char, logprob });
const { step, position } = await session.step("x");
say({ id: session.id, text: generation.text, reason: generation.reason, step, position, links: [...new Set(links)] });
session.close();

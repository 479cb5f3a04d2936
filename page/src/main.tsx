import "./style.css"; // first: the views refine it
import { render } from "preact";
import { Shell } from "./shell.tsx";

render(<Shell />, document.getElementById("page")!);

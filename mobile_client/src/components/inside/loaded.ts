/** What is loaded together, apart from the first load. */

export { Inside } from "../../lib/state/inside";
export { InsideScreen } from "./InsideScreen";

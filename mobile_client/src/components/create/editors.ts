/** What is loaded together, apart from the first load. */

export { MaskScreen } from "./MaskScreen";
export { PhotoScreen } from "./PhotoScreen";

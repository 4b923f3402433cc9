export { Timeline } from "../timeline/Timeline";

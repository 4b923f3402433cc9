export { Viewer, type ViewerProps } from "../viewer/Viewer";

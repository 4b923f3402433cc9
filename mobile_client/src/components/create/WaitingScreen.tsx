import { EditorFrame } from "../common/EditorFrame";

/** Covers the screen until an editor can open; it can always be left. */
export function WaitingScreen(props: { title: string; text: string; onCancel: () => void }) {
  const { title, text, onCancel } = props;
  return (
    <EditorFrame kind="photo" title={title} onCancel={onCancel}>
      <p class="photo-message" role="status">
        {text}
      </p>
    </EditorFrame>
  );
}

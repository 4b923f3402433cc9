import { effect } from "@preact/signals";
import { useEffect, useState } from "preact/hooks";
import type { Board } from "../../lib/canvas/board";
import type { Operation } from "../../lib/canvas/strokes";
import { dataUri } from "../../lib/canvas/surface";
import { t } from "../../strings";
import { EditorFrame } from "../common/EditorFrame";
import { Icon } from "../common/Icon";
import { useLeft } from "../common/useLeft";
import { shortcut } from "./keys";
import { Sheet } from "./Sheet";
import { Tools } from "./Tools";
import { useBoard } from "./useBoard";

export interface MaskEditorProps {
  picture: string | Blob;
  /** Strokes painted earlier. */
  operations?: readonly Operation[];
  /** The mask that they were painted on; without one, nothing is painted before them. */
  base?: string | Blob | undefined;
  /** Called with all strokes whenever there is one more or less. */
  onChange: (operations: readonly Operation[]) => void;
  /**
   * @param mask PNG: white is repainted.
   * @param preview small picture with the mask over it, as a data URI.
   */
  onDone: (mask: Blob, preview: string, operations: readonly Operation[]) => void;
  onCancel: () => void;
}

/** Paints the mask: the part of a picture to repaint. */
export function MaskEditor(props: MaskEditorProps) {
  const { picture, operations, base, onChange, onDone, onCancel } = props;
  const { board, failed } = useBoard(picture, operations, base);
  const [busy, setBusy] = useState(false);
  const isLeft = useLeft();

  useEffect(() => board && effect(() => onChange(board.operations)), [board]);

  async function finish(done: Board) {
    setBusy(true);
    try {
      const [mask, preview] = await Promise.all([done.png(), done.preview()]);
      const shown = await dataUri(preview);
      if (!isLeft()) onDone(mask, shown, done.operations);
    } finally {
      setBusy(false);
    }
  }

  function onKeyDown(event: KeyboardEvent) {
    if (board && shortcut(event, board)) event.preventDefault();
  }

  return (
    <EditorFrame
      kind="mask"
      title={t("mask.title")}
      onKeyDown={onKeyDown}
      onCancel={onCancel}
      tool={
        <button
          type="button"
          class="button bare icon"
          onClick={() => board?.showAll()}
          aria-label={t("mask.showAll")}
        >
          <Icon name="fit" />
        </button>
      }
    >
      {failed && <p class="mask-message problem">{t("mask.noPicture")}</p>}
      {!failed &&
        (board ? <Sheet board={board} /> : <p class="mask-message">{t("common.loading")}</p>)}
      {board && <Tools board={board} busy={busy} onDone={() => finish(board)} />}
    </EditorFrame>
  );
}

import type { Board } from "../../lib/canvas/board";
import { BRUSHES } from "../../lib/canvas/board";
import { type Key, t } from "../../strings";
import { Icon, type IconName } from "../common/Icon";

interface ToolsProps {
  board: Board;
  busy: boolean;
  onDone: () => void;
}

/** The toolbar, at the bottom edge. */
export function Tools({ board, busy, onDone }: ToolsProps) {
  const erases = board.erases.value;
  return (
    <footer class="mask-tools">
      <div class="mask-row">
        <fieldset class="mask-modes">
          <legend class="visually-hidden">{t("mask.tool")}</legend>
          <Mode on={!erases} icon="brush" name="mask.paint" onPick={() => pick(board, false)} />
          <Mode on={erases} icon="eraser" name="mask.erase" onPick={() => pick(board, true)} />
        </fieldset>
        <label class="mask-size">
          <span class="visually-hidden">{t("mask.brush")}</span>
          <Dot size={0.375} />
          <input
            type="range"
            min={BRUSHES.least}
            max={BRUSHES.most}
            value={board.diameter.value}
            onInput={(event) => board.resizeBrush(event.currentTarget.valueAsNumber)}
          />
          <Dot size={1} />
        </label>
      </div>
      <div class="mask-row">
        <Tool
          icon="undo"
          name="common.undo"
          off={!board.canUndo.value}
          onUse={() => board.undo()}
        />
        <Tool icon="redo" name="mask.redo" off={!board.canRedo.value} onUse={() => board.redo()} />
        <Tool icon="invert" name="mask.invert" off={false} onUse={() => board.invert()} />
        <Tool icon="trash" name="mask.clear" off={board.blank.value} onUse={() => board.clear()} />
        <button
          type="button"
          class="button primary"
          disabled={busy || board.blank.value}
          onClick={onDone}
        >
          {t("common.done")}
        </button>
      </div>
    </footer>
  );
}

function pick(board: Board, erases: boolean): void {
  board.erases.value = erases;
}

function Mode(props: { on: boolean; icon: IconName; name: Key; onPick: () => void }) {
  return (
    <button type="button" class="chip" aria-pressed={props.on} onClick={props.onPick}>
      <Icon name={props.icon} />
      {t(props.name)}
    </button>
  );
}

function Tool(props: { icon: IconName; name: Key; off: boolean; onUse: () => void }) {
  return (
    <button
      type="button"
      class="button bare icon"
      aria-label={t(props.name)}
      title={t(props.name)}
      disabled={props.off}
      onClick={props.onUse}
    >
      <Icon name={props.icon} />
    </button>
  );
}

function Dot({ size }: { size: number }) {
  return <span class="mask-dot" style={{ width: `${size}rem`, height: `${size}rem` }} />;
}

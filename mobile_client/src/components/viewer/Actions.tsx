import { useState } from "preact/hooks";
import { fileName } from "../../lib/file-name";
import type { Job, Picture } from "../../lib/transport/types";
import { type Key, t } from "../../strings";
import { Icon, type IconName } from "../common/Icon";
import { Sheet } from "../common/Sheet";
import { canShare, useShare } from "../common/share";
import { Upscale } from "../common/Upscale";
import { useApp } from "../context";

interface ActionsProps {
  job: Job;
  picture: Picture;
  onRemix: () => void;
  onUseAs: (task: "img2img" | "inpaint" | "edit") => void;
  onDelete: () => void;
}

/** Buttons for one picture, in one row at the bottom. */
export function Actions({ job, picture, onRemix, onUseAs, onDelete }: ActionsProps) {
  const { api, draft } = useApp();
  const [choosing, setChoosing] = useState(false);
  const name = fileName(job, picture);
  const share = useShare(picture.id, name);

  return (
    <div class="viewer-actions">
      <a class="viewer-action" href={api.imageUrl(picture.id)} download={name}>
        <Icon name="save" />
        {t("common.save")}
      </a>
      {canShare() && <Action icon="share" name="common.share" onUse={() => void share()} />}
      {job.task !== "upscale" && <Action icon="remix" name="viewer.remix" onUse={onRemix} />}
      <Action icon="brush" name="viewer.edit" onUse={() => setChoosing(true)} />
      <Upscale picture={picture} class="viewer-action" />
      <Action icon="trash" name="common.delete" onUse={onDelete} />
      {choosing && (
        <Sheet title={t("viewer.edit.title")} onClose={() => setChoosing(false)}>
          <Choice icon="photo" name="viewer.edit.start" onUse={() => onUseAs("img2img")} />
          <Choice icon="brush" name="create.mask.paint" onUse={() => onUseAs("inpaint")} />
          {draft.roomForReference.value && (
            <Choice icon="photo" name="viewer.edit.add" onUse={() => onUseAs("edit")} />
          )}
        </Sheet>
      )}
    </div>
  );
}

function Action(props: { icon: IconName; name: Key; onUse: () => void }) {
  return (
    <button type="button" class="viewer-action" onClick={props.onUse}>
      <Icon name={props.icon} />
      {t(props.name)}
    </button>
  );
}

function Choice(props: { icon: IconName; name: Key; onUse: () => void }) {
  return (
    <button type="button" class="button viewer-choice" onClick={props.onUse}>
      <Icon name={props.icon} />
      {t(props.name)}
    </button>
  );
}

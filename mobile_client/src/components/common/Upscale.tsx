import { useState } from "preact/hooks";
import type { Picture } from "../../lib/transport/types";
import { t } from "../../strings";
import { useApp } from "../context";
import { Icon } from "./Icon";
import { Sheet } from "./Sheet";

interface UpscaleProps {
  picture: Picture;
  /** Of the button. */
  class: string;
}

/** The button that makes a picture larger, where the server has an upscaler that can. */
export function Upscale({ picture, class: look }: UpscaleProps) {
  const state = useApp();
  const [choosing, setChoosing] = useState(false);
  const { id, width, height } = picture;
  const scales = state.catalog.scalesFor(picture);
  if (scales.length === 0) return null;
  return (
    <>
      <button type="button" class={look} onClick={() => setChoosing(true)}>
        <Icon name="enlarge" />
        {t("upscale.button")}
      </button>
      {choosing && (
        <Sheet title={t("upscale.title")} onClose={() => setChoosing(false)}>
          {scales.map((scale) => (
            <button
              key={scale}
              type="button"
              class="button wide"
              onClick={() => void state.upscale(id, scale)}
            >
              {t("upscale.choice", { scale, width: width * scale, height: height * scale })}
            </button>
          ))}
        </Sheet>
      )}
    </>
  );
}

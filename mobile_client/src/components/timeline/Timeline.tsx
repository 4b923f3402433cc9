import { useEffect, useState } from "preact/hooks";
import { type Film, readFilm } from "../../lib/state/timeline";
import type { Picture } from "../../lib/transport/types";
import { t } from "../../strings";
import { Icon } from "../common/Icon";
import { useApp } from "../context";

/** Length of a replay, whatever the number of previews. */
const PLAYING_MS = 3_000;
const LEAST_FRAME_MS = 60;

/** Replays the previews of a picture, with a slider. */
export function Timeline({ picture }: { picture: Picture }) {
  const film = useFilm(picture);
  const { api } = useApp();
  if (!film) {
    return (
      <div class="timeline" aria-busy="true">
        <div class="timeline-picture" />
        <p class="hint timeline-message" role="status">
          {t("common.loading")}
        </p>
      </div>
    );
  }
  if (film.frames.length === 0) return <p class="hint timeline-message">{t("timeline.none")}</p>;
  return <Player key={picture.id} film={film} picture={api.imageUrl(picture.id)} />;
}

function useFilm({ job_id, index }: Picture): Film | undefined {
  const { api } = useApp();
  const [film, setFilm] = useState<Film>();
  useEffect(() => {
    setFilm(undefined);
    return readFilm(api, job_id, index, setFilm);
  }, [api, job_id, index]);
  return film;
}

function Player({ film, picture }: { film: Film; picture: string }) {
  const { frames, steps } = film;
  /** The finished picture is the last frame. */
  const last = frames.length;
  const [at, setAt] = useState(last);
  const [playing, setPlaying] = useState(false);

  useEffect(() => {
    if (!playing) return;
    const pause = Math.max(LEAST_FRAME_MS, PLAYING_MS / (last + 1));
    const timer = setInterval(() => setAt((now) => Math.min(last, now + 1)), pause);
    return () => clearInterval(timer);
  }, [playing, last]);

  useEffect(() => {
    if (at === last) setPlaying(false);
  }, [at, last]);

  function play() {
    if (at === last) setAt(0);
    setPlaying(!playing);
  }

  const frame = frames[at];
  const label = frame
    ? t("timeline.step", { step: frame.step ?? at + 1, steps: steps || last })
    : t("timeline.finished");

  return (
    <div class="timeline">
      <div class="timeline-picture">
        <img src={picture} alt="" />
        {frame && <img src={frame.image} alt={label} />}
      </div>
      <div class="timeline-controls">
        <button
          type="button"
          class="button icon"
          aria-label={t(playing ? "timeline.pause" : "timeline.play")}
          onClick={play}
        >
          <Icon name={playing ? "pause" : "play"} />
        </button>
        <input
          type="range"
          min={0}
          max={last}
          value={at}
          aria-label={t("viewer.replay")}
          aria-valuetext={label}
          onInput={(event) => {
            setPlaying(false);
            setAt(event.currentTarget.valueAsNumber);
          }}
        />
        <output class="timeline-label">{label}</output>
      </div>
    </div>
  );
}

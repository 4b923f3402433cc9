import { useId, useMemo, useState } from "preact/hooks";
import { type Cell, firstMap, Maps, type Term, termsOf } from "../../lib/inside/maps";
import { brightest, regionOf } from "../../lib/inside/places";
import type { Kept } from "../../lib/inside/store";
import type { MapName } from "../../lib/transport/types";
import { number, t } from "../../strings";
import { HeatPicture } from "./HeatPicture";

/** What was touched last: a word, or a place of the picture. */
type Chosen = { readonly term: Term } | { readonly cell: Cell } | null;

const MAPS: readonly MapName[] = ["carried_back", "all_steps", "last_quarter"];
/** So many of a place's words are read out. */
const MOST_SAID = 3;

/** Where each word looked, and which words looked at a place. */
export function Words({ kept }: { kept: Kept }) {
  const { explained } = kept;
  const id = useId();
  const [name, setName] = useState(() => firstMap(explained));
  const [chosen, setChosen] = useState<Chosen>(null);
  const array = explained.maps[name] ?? explained.maps.all_steps;
  const maps = useMemo(() => new Maps(array), [array]);
  const terms = useMemo(() => termsOf(explained), [explained]);
  const term = chosen && "term" in chosen ? chosen.term : null;
  const cell = chosen && "cell" in chosen ? chosen.cell : null;
  const grid = useMemo(() => term && maps.of(term), [maps, term]);

  const shares = cell ? terms.map((each) => maps.at(each, cell)) : null;
  const most = Math.max(0, ...(shares ?? []).filter((_, at) => terms[at]?.kind === "word"));
  const said = () => {
    if (term && grid)
      return sayWhere(
        term,
        brightest(grid).map((each) => t(`inside.at.${each}`)),
      );
    if (cell && shares) return sayHere(t(`inside.at.${regionOf(cell, maps)}`), terms, shares);
    return t("inside.words.hint");
  };

  return (
    <section class="inside-words" aria-labelledby={`${id}-title`}>
      <h2 id={`${id}-title`} class="visually-hidden">
        {t("inside.words")}
      </h2>
      <HeatPicture
        kept={kept}
        grid={grid}
        cell={cell}
        maps={maps}
        onTouch={(touched) => setChosen({ cell: touched })}
      />
      <p class="inside-said" role="status">
        {said()}
      </p>
      <ul class="inside-terms" aria-label={t("inside.words")}>
        {terms.map((each, at) => (
          <TermChip
            key={`${each.kind} ${at}`}
            term={each}
            isChosen={each === term}
            share={shares?.[at] ?? null}
            most={most}
            onUse={() => setChosen(each === term ? null : { term: each })}
          />
        ))}
      </ul>
      <fieldset class="field">
        <legend class="label">{t("inside.map")}</legend>
        <div class="chips">
          {MAPS.filter((each) => explained.maps[each]).map((each) => (
            <label key={each} class="chip">
              <input
                type="radio"
                class="visually-hidden"
                name={`${id}-map`}
                checked={each === name}
                onChange={() => setName(each)}
              />
              {t(`inside.map.${each}`)}
            </label>
          ))}
        </div>
        <p class="hint">{t(`inside.map.${name}.hint`)}</p>
      </fieldset>
    </section>
  );
}

interface ChipProps {
  term: Term;
  isChosen: boolean;
  /** Of the attention of the place that was touched; null if none was. */
  share: number | null;
  /** The greatest share of a word there. */
  most: number;
  onUse: () => void;
}

function TermChip({ term, isChosen, share, most, onUse }: ChipProps) {
  const isWord = term.kind === "word";
  const full = share !== null && isWord && most > 0 ? (share / most) * 100 : 0;
  return (
    <li>
      <button
        type="button"
        class={isWord ? "chip inside-term" : "chip inside-term other"}
        style={{ "--full": `${full}%` }}
        aria-pressed={isChosen}
        onClick={onUse}
      >
        {nameOf(term)}
        {share !== null && <span class="inside-share">{percent(share)}</span>}
      </button>
    </li>
  );
}

function nameOf(term: Term): string {
  return term.kind === "word" ? term.text : t(`inside.kind.${term.kind}`);
}

function sayWhere(term: Term, places: readonly string[]): string {
  const [one, other] = places;
  if (one === undefined) return t("inside.nowhere", { word: nameOf(term) });
  const place = other === undefined ? one : t("inside.and", { one, other });
  return t("inside.where", { word: nameOf(term), place });
}

/** The words that looked most at a place, the one that did most first. */
function sayHere(place: string, terms: readonly Term[], shares: readonly number[]): string {
  const words = terms
    .map((term, at) => ({ term, share: shares[at] ?? 0 }))
    .filter(({ term, share }) => term.kind === "word" && share > 0)
    .sort((one, other) => other.share - one.share)
    .slice(0, MOST_SAID)
    .map(({ term, share }) => `${nameOf(term)} ${percent(share)}`);
  if (words.length === 0) return t("inside.here.none", { place });
  return t("inside.here", { place, words: words.join(", ") });
}

function percent(share: number): string {
  const value = share * 100;
  return t("inside.percent", { value: number(value, value < 1 ? 1 : 0) });
}

/** Arrow keys in the grid. */

/**
 * Moves the focus from one thumbnail to the next one in a direction; to the first if none has it.
 * Only thumbnails near the visible part are in the page, and focusing one scrolls it into view.
 *
 * @returns whether the key was one that moves.
 */
export function moveFocus(gallery: HTMLElement | null, key: string): boolean {
  const tiles = [...(gallery?.querySelectorAll<HTMLElement>(".tile") ?? [])];
  const now = tiles.indexOf(document.activeElement as HTMLElement);
  switch (key) {
    case "ArrowLeft":
      tiles[Math.max(0, now - 1)]?.focus();
      return true;
    case "ArrowRight":
      tiles[Math.min(tiles.length - 1, now + 1)]?.focus();
      return true;
    case "ArrowUp":
      (now < 0 ? tiles[0] : nextRow(tiles.slice(0, now).reverse(), tiles[now]))?.focus();
      return true;
    case "ArrowDown":
      (now < 0 ? tiles[0] : nextRow(tiles.slice(now + 1), tiles[now]))?.focus();
      return true;
    default:
      return false;
  }
}

/** The thumbnail of the nearest other row that is in the same column, or in the nearest one. */
function nextRow(
  others: readonly HTMLElement[],
  from: HTMLElement | undefined,
): HTMLElement | undefined {
  if (!from) return undefined;
  const first = others.find((tile) => tile.offsetTop !== from.offsetTop);
  const row = others.filter((tile) => tile.offsetTop === first?.offsetTop);
  const far = (tile: HTMLElement) => Math.abs(tile.offsetLeft - from.offsetLeft);
  return row.sort((one, other) => far(one) - far(other))[0];
}

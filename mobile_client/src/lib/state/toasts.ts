/** Short messages at the bottom of the screen, some with an action such as Undo. */

import { type ReadonlySignal, signal } from "@preact/signals";

export interface Toast {
  id: number;
  text: string;
  action?: { label: string; run: () => void };
}

const SHOWN_MS = 6_000;

export class Toasts {
  private readonly list = signal<readonly Toast[]>([]);
  readonly shown: ReadonlySignal<readonly Toast[]> = this.list;
  private count = 0;

  /** Returns the toast's id, to dismiss it early. */
  show(toast: Omit<Toast, "id">, shownMs = SHOWN_MS): number {
    this.count += 1;
    const id = this.count;
    // Two at most, so that they do not cover the buttons.
    this.list.value = [...this.list.value.slice(-1), { ...toast, id }];
    setTimeout(() => this.dismiss(id), shownMs);
    return id;
  }

  dismiss(id: number): void {
    this.list.value = this.list.value.filter((toast) => toast.id !== id);
  }
}

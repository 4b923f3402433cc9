/** Notifications of the browser. */

import type { Notifier } from "./state/settings";

export class BrowserNotifier implements Notifier {
  readonly supported = window.isSecureContext && "Notification" in window;

  async allow(): Promise<boolean> {
    if (!this.supported) return false;
    return (await Notification.requestPermission()) === "granted";
  }

  async show(title: string, body: string, icon: string, url: string): Promise<void> {
    if (!this.supported || Notification.permission !== "granted") return;
    const options = { body, icon, tag: url, data: { url } };
    // Android's Chrome notifies through a service worker only, desktops either way.
    const worker = await navigator.serviceWorker?.getRegistration();
    if (worker) return worker.showNotification(title, options);
    const notification = new Notification(title, options);
    notification.onclick = () => {
      window.focus();
      location.hash = url;
    };
  }
}

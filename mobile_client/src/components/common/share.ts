/** Sharing a picture with another app of the phone. */

/** Whether the browser can share files. It needs HTTPS or localhost. */
export function canShare(): boolean {
  const probe = new File([], "picture.png", { type: "image/png" });
  return navigator.canShare?.({ files: [probe] }) ?? false;
}

export async function sharePicture(picture: Blob, name: string): Promise<void> {
  const file = new File([picture], name, { type: picture.type });
  // Closing the phone's share sheet is not an error.
  await navigator.share({ files: [file] }).catch(() => undefined);
}

/** One PUT to the storage, with progress: XMLHttpRequest, since fetch reports none for a request's body. */

import { ApiError } from './api';
import type { Upload } from './model';

/** The browser sets these itself and refuses to let a page do it. */
const BROWSERS_OWN = new Set(['host', 'content-length', 'connection', 'origin']);

export function send(
  upload: Upload,
  file: Blob,
  onProgress: (sent: number) => void,
  signal: AbortSignal,
): Promise<void> {
  return new Promise((resolve, reject) => {
    const xhr = new XMLHttpRequest();
    const stop = () => xhr.abort();
    const settle = (act: () => void) => {
      signal.removeEventListener('abort', stop);
      act();
    };
    xhr.open(upload.method, upload.url, true);
    for (const [name, value] of Object.entries(upload.headers)) {
      if (!BROWSERS_OWN.has(name.toLowerCase())) xhr.setRequestHeader(name, value);
    }
    xhr.upload.onprogress = (event) => onProgress(Math.min(event.loaded, file.size));
    xhr.onload = () =>
      settle(() => {
        if (xhr.status >= 200 && xhr.status < 300) resolve();
        else reject(new ApiError('storage-refused', refused(xhr.status, xhr.responseText), xhr.status));
      });
    xhr.onerror = () =>
      settle(() => reject(new ApiError('storage-unreachable', 'The connection to the storage broke off. Try again.', 0)));
    xhr.onabort = () => settle(() => reject(new DOMException('The upload was cancelled.', 'AbortError')));
    signal.addEventListener('abort', stop, { once: true });
    if (signal.aborted) stop();
    else xhr.send(file);
  });
}

/** S3 explains itself in XML; its message is worth showing. */
function refused(status: number, body: string): string {
  const said = /<Message>([^<]{1,300})<\/Message>/.exec(body)?.[1];
  return `The storage refused the upload (${status})${said ? `: ${said}` : '.'}`;
}

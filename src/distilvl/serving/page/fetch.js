// Requests to our own server: with the key where there is one, again when the server is busy.

const KEY = "distilvl-key";

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export function remember(key) {
  sessionStorage.setItem(KEY, key);
}

export async function request(path, signal, body) {
  const headers = {};
  const key = sessionStorage.getItem(KEY);
  if (key) headers.Authorization = `Bearer ${key}`;
  if (body) headers["Content-Type"] = "application/json";
  const options = { method: body ? "POST" : "GET", headers, signal, body: body && JSON.stringify(body) };
  for (let tries = 1; ; tries += 1) {
    const response = await fetch(path, options);
    if (response.ok) return response;
    if (response.status !== 503 || tries === 5) throw new Refused(response.status, await reason(response));
    const seconds = Number(response.headers.get("Retry-After")) || 1;
    await new Promise((resolve) => setTimeout(resolve, 1000 * seconds));
    signal.throwIfAborted();
  }
}

async function reason(response) {
  try {
    return (await response.json()).error.message;
  } catch {
    return `The server answers with status ${response.status}.`;
  }
}

// Thumbnails are fetched rather than linked, since an <img> cannot send the key. The last ones stay at hand.
const kept = new Map();
const MOST_KEPT = 400;

export async function thumbnail(path, signal) {
  if (!kept.has(path)) {
    const response = await request(path, signal);
    kept.set(path, URL.createObjectURL(await response.blob()));
  }
  const url = kept.get(path);
  kept.delete(path);
  kept.set(path, url);
  for (const [oldest, old] of kept) {
    if (kept.size <= MOST_KEPT) break;
    URL.revokeObjectURL(old);
    kept.delete(oldest);
  }
  return url;
}

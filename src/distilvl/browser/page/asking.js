// Where tiles.js finds a thumbnail: a file of this folder.

export async function thumbnail(path) {
  return new URL(path, import.meta.url).href;
}

// Where tiles.js gets a thumbnail: from a file of this folder.

export async function thumbnail(path) {
  return new URL(path, import.meta.url).href;
}

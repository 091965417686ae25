// Reads a frame's binary message; its format is described in web/message.py.

export const INVALID = 0;
export const FARTHEST = 65535;

export async function readFrame(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  const start = 4 + length;
  const end = start + header.image_bytes;
  const [image, planes] = await Promise.all([
    createImageBitmap(new Blob([buffer.slice(start, end)], { type: "image/jpeg" })),
    inflate(buffer.slice(end)),
  ]);
  return { header, image, counts: addUp(planes, header.width, header.height) };
}

async function inflate(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// Low bytes, then high bytes, of differences to the left neighbour.
function addUp(planes, width, height) {
  const pixels = width * height;
  const counts = new Uint16Array(pixels);
  for (let row = 0; row < pixels; row += width) {
    let sum = 0;
    for (let i = row; i < row + width; i++) {
      sum += planes[i] | (planes[i + pixels] << 8);
      counts[i] = sum;
    }
  }
  return counts;
}

// The point cloud: every depth is a vertex, which the graphics processor projects.

const MOST_POINTS = 400_000;
const HOME = { yaw: 0.2, pitch: 0.2, zoom: 1, x: 0, y: 0 };
const KEY_TURN = 0.06;
const KEY_ZOOM = 1.12;

const VERTEX = `#version 300 es
precision highp float;
precision highp usampler2D;
uniform usampler2D counts;
uniform sampler2D colours;
uniform ivec2 size;
uniform int stride;
uniform vec4 camera;      // fx, fy, cx, cy
uniform float perMetre;
uniform mat4 view;
uniform float pointSize;
out vec3 colour;
void main() {
  int columns = (size.x + stride - 1) / stride;
  ivec2 pixel = ivec2(gl_VertexID % columns, gl_VertexID / columns) * stride;
  uint count = texelFetch(counts, pixel, 0).r;
  float z = float(count) / perMetre;
  vec2 ray = (vec2(pixel) - camera.zw) / camera.xy;
  gl_Position = count == 0u ? vec4(2.0, 2.0, 2.0, 1.0) : view * vec4(ray * z, z, 1.0);
  gl_PointSize = pointSize;
  colour = texture(colours, (vec2(pixel) + 0.5) / vec2(size)).rgb;
}`;

const FRAGMENT = `#version 300 es
precision mediump float;
in vec3 colour;
out vec4 shown;
void main() { shown = vec4(colour, 1.0); }`;

export class Cloud {
  #look = { ...HOME };
  #frame = null;
  #target = 5;
  #gl;
  #places = {};
  #due = false;

  constructor(canvas) {
    this.canvas = canvas;
    this.pointSize = 2;
    this.#start();
    this.#listen();
    new ResizeObserver(() => this.draw()).observe(canvas);
  }

  get available() {
    return Boolean(this.#gl);
  }

  // Show a frame's header and counts, coloured by a picture of any size.
  show(header, counts, picture) {
    const gl = this.#gl;
    if (!gl) return;
    gl.activeTexture(gl.TEXTURE0);
    gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.R16UI, header.width, header.height, 0,
      gl.RED_INTEGER, gl.UNSIGNED_SHORT, counts);
    gl.activeTexture(gl.TEXTURE1);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, gl.RGBA, gl.UNSIGNED_BYTE, picture);
    if (!this.#frame) this.#target = middle(counts) / header.counts_per_metre;
    this.#frame = header;
    this.draw();
  }

  home() {
    this.#look = { ...HOME };
    this.#frame = null;
  }

  // Draw once before the next repaint, however often this is called.
  draw() {
    if (this.#due) return;
    this.#due = true;
    requestAnimationFrame(() => {
      this.#due = false;
      this.#render();
    });
  }

  #start() {
    const gl = this.#gl = this.canvas.getContext("webgl2", { antialias: false });
    if (!gl) return;
    const program = gl.createProgram();
    for (const [kind, text] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, text);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    }
    gl.linkProgram(program);
    gl.useProgram(program);
    for (const name of ["size", "stride", "camera", "perMetre", "view", "pointSize", "counts",
      "colours"]) {
      this.#places[name] = gl.getUniformLocation(program, name);
    }
    gl.uniform1i(this.#places.counts, 0);
    gl.uniform1i(this.#places.colours, 1);
    for (const [unit, filter] of [[gl.TEXTURE0, gl.NEAREST], [gl.TEXTURE1, gl.LINEAR]]) {
      gl.activeTexture(unit);
      gl.bindTexture(gl.TEXTURE_2D, gl.createTexture());
      gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, filter);
      gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MAG_FILTER, filter);
      gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_WRAP_S, gl.CLAMP_TO_EDGE);
      gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_WRAP_T, gl.CLAMP_TO_EDGE);
    }
    gl.enable(gl.DEPTH_TEST);
    gl.clearColor(0.05, 0.07, 0.09, 1);
  }

  #render() {
    const gl = this.#gl;
    const { canvas } = this;
    const header = this.#frame;
    if (!gl || !header || !canvas.clientWidth) return;
    const ratio = window.devicePixelRatio || 1;
    canvas.width = Math.round(canvas.clientWidth * ratio);
    canvas.height = Math.round(canvas.clientHeight * ratio);
    gl.viewport(0, 0, canvas.width, canvas.height);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    const { width, height } = header;
    const stride = Math.ceil(Math.sqrt((width * height) / MOST_POINTS));
    const places = this.#places;
    gl.uniform2i(places.size, width, height);
    gl.uniform1i(places.stride, stride);
    gl.uniform4f(places.camera, header.fx, header.fy, header.cx, header.cy);
    gl.uniform1f(places.perMetre, header.counts_per_metre);
    // Points of a small frame are larger, so that they still make surfaces.
    const sparse = Math.max(1, (stride * canvas.clientHeight) / (2 * height));
    gl.uniform1f(places.pointSize, this.pointSize * ratio * sparse);
    gl.uniformMatrix4fv(places.view, false, this.#matrix(header));
    gl.drawArrays(gl.POINTS, 0, Math.ceil(width / stride) * Math.ceil(height / stride));
  }

  // World axes are the camera's: x right, y down, z forward. The scene is rotated about a point
  // ahead of the camera, and the zoom moves the viewpoint back and forth.
  #matrix(header) {
    const { yaw, pitch, zoom, x, y } = this.#look;
    const target = this.#target;
    const distance = target / zoom;
    const [c, s] = [Math.cos(yaw), Math.sin(yaw)];
    const [cp, sp] = [Math.cos(pitch), Math.sin(pitch)];
    const turn = [
      [c, 0, s],
      [sp * s, cp, -sp * c],
      [-cp * s, sp, cp * c],
    ];
    const shift = turn.map((row) => -row[2] * target);
    shift[0] += x * target;
    shift[1] += y * target;
    shift[2] += distance;
    const aspect = this.canvas.width / this.canvas.height;
    // A compromise between the full width and the full height of the picture.
    const [across, down] = [header.width / (2 * header.fx), header.height / (2 * header.fy)];
    const wide = Math.sqrt(across * down * aspect);
    const near = target / 500;
    const far = target * 500;
    const [a, b] = [(far + near) / (far - near), (-2 * far * near) / (far - near)];
    const rows = [
      [...turn[0], shift[0]].map((value) => value / wide),
      [...turn[1], shift[1]].map((value) => (-value * aspect) / wide),
      [...turn[2], shift[2]].map((value, i) => value * a + (i === 3 ? b : 0)),
      [...turn[2], shift[2]],
    ];
    return new Float32Array([0, 1, 2, 3].flatMap((column) => rows.map((row) => row[column])));
  }

  #listen() {
    const { canvas } = this;
    canvas.addEventListener("pointermove", (event) => {
      if (!event.buttons) return;
      const [dx, dy] = [event.movementX / canvas.clientWidth, event.movementY / canvas.clientWidth];
      if (event.shiftKey || event.buttons === 2) this.#move(dx, dy);
      else this.#turn(-dx * 3, dy * 3);
    });
    canvas.addEventListener("pointerdown", (event) => canvas.setPointerCapture(event.pointerId));
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.#zoom(Math.exp(-event.deltaY / 600));
    }, { passive: false });
    canvas.addEventListener("keydown", (event) => this.#key(event));
    canvas.addEventListener("webglcontextlost", (event) => event.preventDefault());
    canvas.addEventListener("webglcontextrestored", () => {
      this.#frame = null;
      this.#start();
    });
  }

  #key(event) {
    const act = {
      ArrowLeft: () => this.#turn(KEY_TURN, 0),
      ArrowRight: () => this.#turn(-KEY_TURN, 0),
      ArrowUp: () => this.#turn(0, -KEY_TURN),
      ArrowDown: () => this.#turn(0, KEY_TURN),
      "+": () => this.#zoom(KEY_ZOOM),
      "-": () => this.#zoom(1 / KEY_ZOOM),
      0: () => this.canvas.dispatchEvent(new Event("home")),
    }[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  }

  #turn(yaw, pitch) {
    this.#look.yaw += yaw;
    this.#look.pitch = Math.min(Math.max(this.#look.pitch + pitch, -1.5), 1.5);
    this.draw();
  }

  #move(x, y) {
    this.#look.x += x;
    this.#look.y += y;
    this.draw();
  }

  #zoom(factor) {
    this.#look.zoom = Math.min(Math.max(this.#look.zoom * factor, 0.1), 50);
    this.draw();
  }
}

// The median of the valid counts.
function middle(counts) {
  const valid = counts.filter((count, i) => count > 0 && i % 13 === 0).sort();
  return valid.length ? valid[valid.length >> 1] : 5000;
}

// The WebSocket: requests one frame at a time, and reconnects automatically.

const SHORTEST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 5000;
const ENDED = 1000; // the close code at the end of the stream

export class Connection {
  #socket = null;
  #wait = SHORTEST_WAIT_MS;
  #requesting = true;
  #ended = false;
  #drawn = Promise.resolve();

  // on: {state(name), text(object), frame(buffer) -> Promise}
  constructor(on) {
    this.on = on;
    this.#open();
  }

  // Request frames, or none.
  request(requesting) {
    this.#requesting = requesting;
    this.#send(requesting ? "next" : "pause");
    this.#reportState();
  }

  #open() {
    this.#reportAbsence("connecting");
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocket(`${scheme}//${location.host}/ws`);
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      this.#wait = SHORTEST_WAIT_MS;
      this.#ended = false;
      this.request(this.#requesting);
    };
    socket.onmessage = (event) => this.#receive(event.data);
    socket.onclose = (event) => this.#lost(event.code);
    this.#socket = socket;
  }

  #receive(data) {
    if (typeof data === "string") {
      this.on.text(JSON.parse(data));
      return;
    }
    // At the end the last frame comes without a request, perhaps while another is drawn.
    this.#drawn = this.#drawn.catch(() => {}).then(() => this.#draw(data));
  }

  // The next frame is requested when this one is drawn, so that none waits here.
  async #draw(data) {
    await this.on.frame(data);
    this.#send(this.#requesting ? "next" : "pause");
  }

  #lost(code) {
    if (code === ENDED) this.#ended = true;
    this.#reportAbsence("lost");
    setTimeout(() => this.#open(), this.#wait);
    this.#wait = Math.min(2 * this.#wait, LONGEST_WAIT_MS);
  }

  #send(word) {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(word);
  }

  // A stream that has ended can come back: the page retries silently.
  #reportAbsence(state) {
    this.on.state(this.#ended ? "ended" : state);
  }

  #reportState() {
    if (this.#socket?.readyState === WebSocket.OPEN) {
      this.on.state(this.#requesting ? "open" : "paused");
    }
  }
}

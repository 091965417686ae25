// The WebSocket: asks for one frame at a time, and comes back by itself when it is lost.

const SHORTEST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 5000;
const ENDED = 1000; // the code a stream that has ended closes with

export class Connection {
  #socket = null;
  #wait = SHORTEST_WAIT_MS;
  #asking = true;
  #ended = false;

  // on: {state(name), text(object), frame(buffer) -> Promise}
  constructor(on) {
    this.on = on;
    this.#open();
  }

  // Ask for frames, or for none.
  ask(asking) {
    this.#asking = asking;
    this.#say(asking ? "next" : "pause");
    this.#tellState();
  }

  #open() {
    this.#tellAbsent("connecting");
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocket(`${scheme}//${location.host}/ws`);
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      this.#wait = SHORTEST_WAIT_MS;
      this.#ended = false;
      this.ask(this.#asking);
    };
    socket.onmessage = (event) => this.#take(event.data);
    socket.onclose = (event) => this.#lost(event.code);
    this.#socket = socket;
  }

  async #take(data) {
    if (typeof data === "string") {
      this.on.text(JSON.parse(data));
      return;
    }
    // The next frame is asked for when this one is drawn: none ever waits here.
    await this.on.frame(data);
    this.#say(this.#asking ? "next" : "pause");
  }

  #lost(code) {
    if (code === ENDED) this.#ended = true;
    this.#tellAbsent("lost");
    setTimeout(() => this.#open(), this.#wait);
    this.#wait = Math.min(2 * this.#wait, LONGEST_WAIT_MS);
  }

  #say(word) {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(word);
  }

  // A stream that has ended may come back: it is looked for, without a word.
  #tellAbsent(state) {
    this.on.state(this.#ended ? "ended" : state);
  }

  #tellState() {
    if (this.#socket?.readyState === WebSocket.OPEN) {
      this.on.state(this.#asking ? "open" : "paused");
    }
  }
}

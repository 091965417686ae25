// The WebSocket: asks for one frame at a time, and comes back by itself when it is lost.

const SHORTEST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 5000;

export class Connection {
  #socket = null;
  #wait = SHORTEST_WAIT_MS;
  #asking = true;

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
    this.on.state("connecting");
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocket(`${scheme}//${location.host}/ws`);
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      this.#wait = SHORTEST_WAIT_MS;
      this.ask(this.#asking);
    };
    socket.onmessage = (event) => this.#take(event.data);
    socket.onclose = () => this.#lost();
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

  #lost() {
    this.on.state("lost");
    setTimeout(() => this.#open(), this.#wait);
    this.#wait = Math.min(2 * this.#wait, LONGEST_WAIT_MS);
  }

  #say(word) {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(word);
  }

  #tellState() {
    if (this.#socket?.readyState === WebSocket.OPEN) {
      this.on.state(this.#asking ? "open" : "paused");
    }
  }
}

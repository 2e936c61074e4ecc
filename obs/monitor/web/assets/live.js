// The stream of events from the monitor, for ever: what breaks is opened again, and how long it has been silent is always known.

import { ServerClock } from "./server_clock.js";

const RETRY_MS = 2000;
const SILENT_MS = 6000; // status comes each second; after so long the stream is dead, whatever the socket says

export class Live {
  /** `handlers`: name of the event -> function of its value. `changed(open)`: when the stream is there or lost. */
  constructor(url, handlers, changed) {
    this.url = url;
    this.handlers = handlers;
    this.changed = changed;
    this.open = null; // null: not yet known
    this.lastMs = performance.now();
    this.lostMs = performance.now();
    this.triedMs = 0;
    this.clock = new ServerClock();
    this.connect();
    setInterval(() => this.watch(), 1000);
    // A page that comes back from sleep or from the history does not wait for its timers.
    addEventListener("online", () => this.again());
    addEventListener("pageshow", (event) => event.persisted && this.again());
    addEventListener("pagehide", () => this.source?.close());
  }

  /** Seconds since anything came. */
  get silentS() {
    return (performance.now() - this.lastMs) / 1000;
  }

  get lostS() {
    return (performance.now() - this.lostMs) / 1000;
  }

  connect() {
    this.source?.close();
    this.triedMs = performance.now();
    const source = (this.source = new EventSource(this.url));
    for (const [name, handler] of Object.entries(this.handlers)) {
      source.addEventListener(name, (event) => {
        this.lastMs = performance.now();
        const value = JSON.parse(event.data);
        if (name === "hello") {
          this.clock.heard(value.now_ms);
        } else if (name === "status") {
          this.clock.heard(Date.parse(value.ts));
        }
        this.tell(true);
        handler(value);
      });
    }
    source.addEventListener("error", () => {
      if (source !== this.source) {
        return;
      }
      this.tell(false);
      // The browser tries again by itself, but not after an answer that was no stream (401, 503, a proxy).
      if (source.readyState === EventSource.CLOSED) {
        this.refused();
      }
    });
  }

  async refused() {
    const source = this.source;
    try {
      const answer = await fetch("/api/status", { method: "GET" });
      if (answer.status === 401) {
        location.assign("/login");
        return;
      }
    } catch {
      // it is away: tried again below
    }
    setTimeout(() => source === this.source && this.connect(), RETRY_MS);
  }

  again() {
    if (!this.open) {
      this.connect();
    }
  }

  watch() {
    if (this.silentS * 1000 > SILENT_MS) {
      this.tell(false);
      if (performance.now() - this.triedMs > SILENT_MS) {
        this.connect();
      }
    }
  }

  tell(open) {
    if (open !== this.open) {
      if (!open) {
        this.lostMs = this.lastMs;
      }
      this.open = open;
      this.changed(open);
    }
  }
}

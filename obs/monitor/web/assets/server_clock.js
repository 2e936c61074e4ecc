// The server's clock, as far as a browser can know it: the two may differ by minutes.

const KEPT = 30;
const DRIFT_MS = 0.1; // with each of the times that come once a second: no two clocks part faster than that
const STEP_MS = 3000; // more than a time can have been late all the while: the server's clock was set back

/** A time that comes from the server is late, never early, so the latest of what they tell is nearest to its clock. */
export class ServerClock {
  /** `own`: milliseconds that only grow. A clock that people set would move all ages with it. */
  constructor(own = () => performance.now()) {
    this.own = own;
    this.leads = [];
    this.lead = Date.now() - own(); // until we are told
  }

  /** Take a time of the server that has just come. */
  heard(serverMs) {
    if (!Number.isFinite(serverMs)) {
      return;
    }
    const first = !this.leads.length;
    this.leads.push(serverMs - this.own());
    this.leads.splice(0, this.leads.length - KEPT);
    const best = Math.max(...this.leads);
    this.lead = first || best < this.lead - STEP_MS ? best : Math.max(best, this.lead - DRIFT_MS);
  }

  nowMs() {
    return this.own() + this.lead;
  }

  /** How long ago a time of the server was. Nothing is shown before it was made, so what would be negative is our own error. */
  ageMs(serverMs) {
    return Math.max(0, this.nowMs() - serverMs);
  }
}

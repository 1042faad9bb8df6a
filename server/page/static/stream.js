// The stream of changes: what is lost is said, and taken up again from the last version.

import { clock, headers, refusalOf } from "./core.js";

const WAITS = [500, 1000, 2000, 4000];
const BEATS_MISSED = 3;

// A browser has six connections to a server, for all of its tabs: one that is not seen has none.
const seen = () => new Promise((done) => {
  if (!document.hidden) return done();
  document.addEventListener("visibilitychange", () => done(seen()), { once: true });
});

export class Stream {
  // `said(state, words)` hears how the connection is; `heard(event)` what changed. An event of type
  // "all" means that everything may have changed.
  constructor(said, heard) {
    this.said = said;
    this.heard = heard;
    this.version = undefined;
    this.lostAt = undefined;
    this.tries = 0;
  }

  begin(version) {
    this.version = version;
    this.run();
  }

  async run() {
    for (;;) {
      await seen();
      try {
        await this.listen();
        this.lost();
      } catch (error) {
        if (document.hidden) continue;
        if (error.code === 401) return this.said("refused", error.message);
        if (error.code === 410) this.version = undefined;
        else this.lost();
      }
      const wait = WAITS[Math.min(this.tries, WAITS.length - 1)];
      this.tries += 1;
      await new Promise((done) => setTimeout(done, wait));
    }
  }

  lost() {
    this.lostAt ??= new Date();
    this.said("lost", `connection lost since ${clock(this.lostAt)}, trying again`);
  }

  async listen() {
    const again = this.version === undefined || this.lostAt !== undefined;
    const silence = new AbortController();
    const hide = () => document.hidden && silence.abort();
    document.addEventListener("visibilitychange", hide);
    let timer;
    const alive = (seconds) => {
      clearTimeout(timer);
      timer = setTimeout(() => silence.abort(), 1000 * seconds);
    };
    alive(10);
    let beat = 5;
    try {
      const from = this.version ?? await this.newest(silence.signal);
      const response = await fetch(`/page/stream?since=${from}`, {
        headers: headers(), signal: silence.signal, cache: "no-store",
      });
      if (!response.ok) throw await refusalOf(response);
      const lines = response.body.pipeThrough(new TextDecoderStream()).getReader();
      this.version = from;
      let rest = "";
      for (;;) {
        const { value, done } = await lines.read();
        if (done) return;
        const parts = (rest + value).split("\n");
        rest = parts.pop();
        for (const line of parts) {
          const event = JSON.parse(line);
          if (event.type === "begin") {
            beat = event.beatSeconds;
            this.found(again);
          } else if (event.type === "end") {
            if (event.expired) this.version = undefined;
          } else if (event.type !== "beat") {
            if (event.version !== undefined) this.version = event.version;
            this.heard(event);
          }
        }
        alive(BEATS_MISSED * beat);
      }
    } finally {
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", hide);
    }
  }

  async newest(signal) {
    const response = await fetch("/page/tree?limit=1", { headers: headers(), signal, cache: "no-store" });
    if (!response.ok) throw await refusalOf(response);
    return (await response.json()).version;
  }

  found(again) {
    this.tries = 0;
    const was = this.lostAt;
    this.lostAt = undefined;
    this.said("live", was ? `live again; it was lost at ${clock(was)}` : "live");
    if (again) this.heard({ type: "all" });
  }
}

// Answers per minute so far, without the breaks.

const LONGEST_PAUSE = 60_000;

export class Pace {
  answers = 0;
  #counted = 0;
  #worked = 0;
  #last = null;

  constructor(clock = () => performance.now()) {
    this.clock = clock;
  }

  // Note some answers; a negative number takes them back.
  note(n) {
    this.answers += n;
    const now = this.clock();
    // The first answers begin the measurement: how long they took is not known.
    if (this.#last !== null) {
      this.#worked += Math.min(now - this.#last, LONGEST_PAUSE);
      this.#counted += n;
    }
    this.#last = now;
  }

  // Null until it is more than a guess.
  perMinute() {
    return this.#counted >= 3 ? this.#counted / (this.#worked / 60_000) : null;
  }
}

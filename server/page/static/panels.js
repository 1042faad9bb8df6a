// The panels: each is a module of panels/ with path, title, inNav, name and open(root, words, page),
// which returns look(events) and, where it must end something, close(). The first is the home.

import { ask } from "./panels/ask.js";
import { compare } from "./panels/compare.js";
import { events } from "./panels/events.js";
import { home } from "./panels/home.js";
import { object } from "./panels/object.js";
import { queue } from "./panels/queue.js";
import { sweep } from "./panels/sweep.js";
import { workers } from "./panels/workers.js";

export const PANELS = [home, queue, workers, events, compare, ask, object, sweep];

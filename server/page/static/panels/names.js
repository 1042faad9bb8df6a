// The experiments that a field may name, also those that a study or a sweep made.

import { element, query, read } from "../core.js";

// Fill a datalist; ask again once another namespace is meant, or everything is looked at.
export function offered(list) {
  let known;
  return async (namespace, events = []) => {
    if (known === namespace && !events.some((one) => one.type === "all")) return;
    const found = await read(`/page/tree/names${query({ namespace })}`);
    known = namespace;
    list.replaceChildren(...found.names.map((value) => element("option", { value })));
  };
}

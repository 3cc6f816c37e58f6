// Style sheets of parts that are put on any page.

/** Puts style sheets on the page, each once; `base` is the module that they belong to (`import.meta.url`). */
export function dress(base, names) {
  return Promise.all(names.map((name) => load(new URL(name, base).href)));
}

function load(href) {
  if ([...document.styleSheets].some((sheet) => sheet.href === href)) return undefined;
  return new Promise((onload, onerror) => {
    const link = document.createElement("link");
    document.head.append(Object.assign(link, { rel: "stylesheet", href, onload, onerror: () => onerror(new Error(`no ${href}`)) }));
  });
}

// Draws the x-ray of an event loop and lets a reader explore it. No dependencies, no network.
// `style` is the style sheet, given by whoever wraps this file in a function.
"use strict";

const HOST = "looplab-xray";
const GROUP_FROM = 6; // so many neighbours of one name are one row of thin lanes
const LANE = 26, SLIM = 20, PANEL = 32, SERVER = 22, ANSWER = 20, STRIP = 5; // heights in pixels
const TALLEST = 700; // the lanes scroll when they are higher together
const THIN = 6, GROUP_TALLEST = 200;
const LEAST = 1.6; // pixels: narrower steps are widened
const SMALLEST_VIEW = 20; // microseconds
const TICK_EVERY = 90; // pixels
const CANCELLED = "cancelled here", TIMED_OUT = "timed out here", NEVER = "cancelled before it started";
const FONT = 'system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif';
const ROWS_IN_TABLE = 200;

// ---------------------------------------------------------------- words

const inEnglish = new Intl.NumberFormat("en-US", { maximumFractionDigits: 2 });
const thousands = number => inEnglish.format(number);

function lasting(micro) {
    if (micro >= 5e6) return `${(micro / 1e6).toFixed(1)} s`;
    if (micro >= 9500) return `${Math.round(micro / 1000)} ms`;
    if (micro >= 1000) return `${(micro / 1000).toFixed(1)} ms`;
    return `${Math.round(micro)} µs`;
}

function moment(micro) {
    if (micro >= 1e7) return `${(micro / 1e6).toFixed(2)} s`;
    return `${thousands(Number((micro / 1000).toFixed(micro < 1e5 ? 2 : 1)))} ms`;
}

// ---------------------------------------------------------------- data

async function unpacked(text) {
    const letters = atob(text), bytes = new Uint8Array(letters.length);
    for (let place = 0; place < letters.length; place++) bytes[place] = letters.charCodeAt(place);
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Response(stream).json();
}

function spansOf(deltas = []) {
    const count = deltas.length / 2;
    const began = new Float64Array(count), ended = new Float64Array(count);
    for (let place = 0, now = 0; place < count; place++) {
        began[place] = now += deltas[2 * place];
        ended[place] = now += deltas[2 * place + 1];
    }
    return { began, ended };
}

function joined(spans) {
    const sorted = [...spans].sort((a, b) => a[0] - b[0]);
    const found = [];
    for (const [began, ended] of sorted) {
        const last = found.at(-1);
        if (last && began <= last[1]) last[1] = Math.max(last[1], ended);
        else found.push([began, ended]);
    }
    return found;
}

function laneOf(raw, panel) {
    const { began, ended } = spansOf(raw.steps);
    const below = spansOf(raw.below);
    const lane = {
        panel, name: panel.names[raw.name], depth: raw.depth ?? 0, loop: raw.loop ?? 0,
        outcome: raw.outcome ?? "done", error: raw.error ?? "", made: raw.made ?? 0, until: raw.until,
        began, ended, spots: raw.spots ?? [], of: raw.of ?? 0, answered: raw.answered ?? 0,
        turns: (raw.turns ?? []).map(place => panel.names[place]),
        marks: (raw.marks ?? []).map(([at, text]) => ({ at, text: panel.names[text] })),
        queues: [], holds: [],
        below: [...below.began].map((from, place) => [from, below.ended[place]]),
        first: began.length ? began[0] : raw.until,
    };
    if (lane.answered) lane.marks.push({ at: lane.answered, text: "answered" });
    for (const [name, from, length] of raw.spans ?? []) {
        const queue = panel.queues.indexOf(name);
        const colour = queue < 0 ? panel.colours.get(name) : panel.colours.get(panel.holds[queue]);
        const span = { from, to: from + length, name: panel.names[name], colour, queue: queue >= 0 };
        (queue < 0 ? lane.holds : lane.queues).push(span);
    }
    lane.strips = [...new Set(lane.holds.map(span => span.name))];
    lane.held = [];
    for (let place = 0; place < began.length; place++) {
        if (ended[place] - began[place] >= panel.held) lane.held.push(place);
    }
    lane.lost = [...lane.held.map(place => [began[place], ended[place]]), ...lane.below]; // holds of the loop
    lane.ends = largest([...lane.holds, ...lane.queues], span => span.to, lane.until);
    lane.ending = outcomeOf(lane);
    return lane;
}

function panelOf(raw, number) {
    const panel = { ...raw, number, colours: new Map(), bands: new Map() };
    const held = new Set(raw.holds), queues = new Set(raw.queues);
    const marked = raw.lanes.flatMap(lane => (lane.spans ?? []).map(span => span[0]));
    for (const name of [...held, ...marked.filter(one => !queues.has(one))]) {
        if (!panel.colours.has(name)) panel.colours.set(name, panel.colours.size % 3);
    }
    panel.chains = raw.spots.map(([names]) => names.map(place => raw.names[place]));
    panel.lanes = raw.lanes.map(lane => laneOf(lane, panel));
    const loops = new Set(panel.lanes.map(lane => lane.loop));
    for (const loop of loops) {
        panel.bands.set(loop, joined(panel.lanes.filter(lane => lane.loop === loop).flatMap(lane => lane.lost)));
    }
    panel.last = largest(panel.lanes, lane => lane.ends, panel.end);
    panel.loops = loops.size;
    return panel;
}

function outcomeOf(lane) {
    if (!lane.began.length) return "not started";
    if (lane.marks.some(mark => mark.text === NEVER)) return "cancelled before it started";
    return { cancelled: "cancelled", failed: lane.error, pending: "not ended" }[lane.outcome] ?? "";
}

const timedOut = lane => lane.marks.some(mark => mark.text === TIMED_OUT);

const NO_NAMES = [];

const namesAt = (lane, step) => lane.panel.chains[lane.spots[step] ?? 0] ?? NO_NAMES;

const innermost = (lane, step) => namesAt(lane, step).at(-1) ?? lane.name;

function placeAt(lane, step) {
    const spot = lane.panel.spots[lane.spots[step] ?? 0];
    if (!spot || spot[1] < 0) return null;
    const file = lane.panel.files[spot[1]];
    return { told: file.startsWith("In [") ? `${file}, line ${spot[2]}` : `${file}:${spot[2]}`, text: spot[3] };
}

// The bars of a lane, by time: steps, the waits between them, what it holds and queues for, marks.
function barsOf(lane, turn) {
    const bars = [];
    const steps = lane.began.length;
    if (!turn && steps && lane.first - lane.made > 0) bars.push({ kind: "start", from: lane.made, to: lane.first });
    for (let place = 0; place < steps; place++) {
        const from = lane.ended[place];
        const to = place + 1 < steps ? lane.began[place + 1] : lane.outcome === "pending" ? lane.until : null;
        if (!turn) bars.push({ kind: "step", place, from: lane.began[place], to: from });
        if (to !== null && (!turn || innermost(lane, place) === turn)) bars.push({ kind: "wait", place, from, to });
    }
    if (!turn) {
        for (const span of [...lane.queues, ...lane.holds]) bars.push({ kind: "span", span, from: span.from, to: span.to });
        for (const mark of lane.marks) bars.push({ kind: "mark", mark, from: mark.at, to: mark.at });
        bars.sort((a, b) => a.from - b.from || a.to - b.to);
    }
    return bars;
}

function firstAtOrAfter(values, wanted) { // the place of the first that is not below `wanted`
    let low = 0, high = values.length;
    while (low < high) {
        const middle = (low + high) >> 1;
        if (values[middle] < wanted) low = middle + 1; else high = middle;
    }
    return low;
}

function shared(bands, from, to) { // how much of a time lies in the bands
    return bands.reduce((sum, [began, ended]) => sum + Math.max(0, Math.min(ended, to) - Math.max(began, from)), 0);
}

// ---------------------------------------------------------------- the page

function element(tag, options = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(options)) {
        if (name === "class") made.className = value;
        else if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
        else if (value !== null && value !== false) made.setAttribute(name, value === true ? "" : value);
    }
    made.append(...children);
    return made;
}

function icon(path, options = {}) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    for (const [name, value] of Object.entries({ viewBox: "0 0 16 16", "aria-hidden": "true", ...options })) {
        made.setAttribute(name, value);
    }
    const line = document.createElementNS("http://www.w3.org/2000/svg", "path");
    line.setAttribute("d", path);
    line.setAttribute("fill", "currentColor");
    made.append(line);
    return made;
}

const ICONS = {
    twist: "M6 4l5 4-5 4z",
    cross: "M3.5 4.9L4.9 3.5 8 6.6l3.1-3.1 1.4 1.4L9.4 8l3.1 3.1-1.4 1.4L8 9.4l-3.1 3.1-1.4-1.4L6.6 8z",
    hourglass: "M3 2.5h10L8.9 8l4.1 5.5H3L7.1 8z",
    pointer: "M3 4h10l-5 8.5z",
    arrow: "M4 3l8.5 5L4 13z",
};

const PATHS = Object.fromEntries(Object.entries(ICONS).map(([name, path]) => [name, new Path2D(path)]));

function isDark() {
    const { body, documentElement: page } = document;
    const jupyter = body.dataset.jpThemeLight;
    if (jupyter) return jupyter === "false";
    const theme = page.dataset.theme ?? body.dataset.theme;
    if (theme === "dark" || theme === "light") return theme === "dark";
    const kinds = `${body.className} ${page.className} ${body.dataset.vscodeThemeKind ?? ""}`;
    if (/vscode-(dark|high-contrast(?!-light))|\bdark(-theme|-mode)?\b/.test(kinds)) return true;
    if (/vscode-light|vscode-high-contrast-light|\blight(-theme|-mode)?\b/.test(kinds)) return false;
    return matchMedia("(prefers-color-scheme: dark)").matches;
}

// The page outlives a picture whose output was cleared: what waits for its changes keeps no picture alive.
function dressAlong(picture) {
    const system = matchMedia("(prefers-color-scheme: dark)");
    const dress = () => {
        const explorer = picture.deref();
        if (explorer) { explorer.dress(); return; }
        watcher.disconnect();
        system.removeEventListener("change", dress);
    };
    const watcher = new MutationObserver(dress);
    const what = { attributes: true, attributeFilter: ["class", "data-theme", "data-jp-theme-light", "data-vscode-theme-kind"] };
    for (const one of [document.body, document.documentElement]) watcher.observe(one, what);
    system.addEventListener("change", dress);
}

class Explorer {
    constructor(host, data) {
        this.host = host;
        this.panels = data.panels.map(panelOf);
        this.limit = Math.max(...this.panels.map(panel => panel.last), 1);
        this.whole = [0, this.limit * 1.14];
        this.view = [...this.whole];
        this.entries = this.panels.flatMap(panel => this.entriesOf(panel));
        this.elements = new Map();
        this.at = null; // the row that has the keyboard
        this.bar = null; // the bar that has it, within that row
        this.pinned = null;
        this.sizes = new Map();
        this.calm = matchMedia("(prefers-reduced-motion: reduce)");
        this.build();
        this.arrange();
        this.dress();
        this.listen();
    }

    // ------------------------------------------------------------ rows

    entriesOf(panel) {
        const entries = [];
        const add = entry => { entries.push({ panel, hidden: false, open: true, ...entry }); return entries.at(-1); };
        if (this.panels.length > 1) add({ kind: "panel", level: -1, label: panel.title });
        const lanes = panel.lanes;
        let server = false;
        const parents = [];
        for (let place = 0; place < lanes.length;) {
            const lane = lanes[place];
            let after = place + 1;
            while (after < lanes.length && lanes[after].name === lane.name
                && lanes[after].depth === lane.depth && lanes[after].loop === lane.loop) after++;
            if (panel.loops > 1 && lane.loop && !server) {
                server = true;
                add({ kind: "server", level: -1, label: "the server's loop", loop: lane.loop });
            }
            while (parents.length && parents.at(-1).level >= lane.depth) parents.pop();
            const parent = parents.at(-1)?.loop === lane.loop ? parents.at(-1) : null;
            const together = lanes.slice(place, after);
            const count = lane.of || together.length;
            let group = null;
            if (count >= GROUP_FROM) {
                group = add({ kind: "group", level: lane.depth, loop: lane.loop, lanes: together, count, label: lane.name, open: false });
                parents.push(group);
            }
            together.forEach((one, number) => {
                const entry = add({
                    kind: "lane", lane: one, loop: one.loop, group, level: one.depth + (group ? 1 : 0), parent,
                    label: group ? `${one.name} ${number + 1}` : one.name,
                });
                if (!group) parents.push(entry);
                for (const turn of one.turns) {
                    add({ kind: "turn", lane: one, turn, loop: one.loop, level: entry.level + 1, label: turn, of: entry });
                }
            });
            place = after;
        }
        add({ kind: "answer", level: -1, label: "" });
        return entries;
    }

    arrange() {
        this.rows = [];
        let top = 0, closed = Infinity;
        for (let place = 0; place < this.entries.length; place++) {
            const entry = this.entries[place];
            if (entry.level <= closed) closed = Infinity;
            if (entry.level > closed || entry.hidden || entry.of?.hidden) continue;
            const next = this.entries[place + 1];
            entry.opens = next !== undefined && entry.level >= 0 && next.level > entry.level;
            if (entry.opens && !entry.open) closed = entry.level;
            entry.top = top;
            entry.height = this.heightOf(entry);
            entry.number = this.rows.length;
            top += entry.height;
            this.rows.push(entry);
        }
        this.tops = this.rows.map(row => row.top);
        this.headers = this.rows.filter(row => row.kind === "panel");
        for (const panel of this.panels) { panel.extents = new Map(); panel.from = null; }
        for (const { panel, kind, loop, top: from, height } of this.rows) {
            if (kind === "panel") continue;
            panel.from ??= from;
            panel.foot = from + height;
            if (loop !== undefined && kind !== "server") panel.extents.set(loop, [panel.extents.get(loop)?.[0] ?? from, from + height]);
        }
        const hidden = this.entries.filter(entry => entry.hidden).length;
        this.showAll.hidden = !hidden;
        this.showAll.textContent = `Show ${thousands(hidden)} hidden`;
        this.grid.style.height = `${top}px`;
        this.scroll.style.maxHeight = `${TALLEST}px`;
        this.scroll.style.height = `${Math.min(top, TALLEST)}px`;
        this.grid.setAttribute("aria-rowcount", this.rows.length);
        if (this.at && !this.hasRow(this.at)) { this.at = null; this.bar = null; }
        if (this.pinned && !this.hasRow(this.pinned.row)) this.unpin();
        for (const [entry, made] of this.elements) {
            if (!this.hasRow(entry)) { made.remove(); this.elements.delete(entry); }
        }
        this.plan();
    }

    hasRow(entry) { return this.rows[entry.number] === entry; }

    heightOf(entry) {
        if (entry.kind === "panel") return PANEL;
        if (entry.kind === "server") return SERVER;
        if (entry.kind === "answer") return ANSWER;
        if (entry.kind === "turn") return SLIM;
        if (entry.kind === "group") {
            return entry.open ? SLIM + 2 : Math.min(Math.max(entry.lanes.length * THIN, 34), GROUP_TALLEST) + 6;
        }
        return LANE + entry.lane.strips.length * STRIP;
    }

    rowAt(y) {
        const place = firstAtOrAfter(this.tops, y + 1e-6) - 1;
        const row = this.rows[place];
        return row && y < row.top + row.height ? row : null;
    }

    // ------------------------------------------------------------ building

    build() {
        const root = this.host.shadowRoot ?? this.host.attachShadow({ mode: "open" });
        root.replaceChildren();
        const first = this.panels[0];
        const count = this.panels.length;
        const heading = count > 1 ? `${count} runs on one time axis` : first.title;
        const titles = this.panels.map(panel => panel.title).join(", ");
        const holds = this.panels.reduce((sum, panel) => sum + [...panel.bands.values()].flat().length, 0);
        const button = (label, text, act, options = {}) =>
            element("button", { type: "button", "aria-label": label, title: label, onclick: act, ...options }, ...[text].flat());
        this.nextHold = button("Next time that the loop was held", [element("span", { class: "red", "aria-hidden": "true" }), "next hold"], () => this.toNextHold());
        this.nextHold.hidden = !holds;
        this.showAll = element("button", { type: "button", onclick: () => this.unhide() });
        this.out = button("Zoom out", "−", () => this.zoom(2));
        this.reset = button("The whole time", "whole", () => this.look(this.whole));
        const tools = element("div", { class: "tools", role: "group", "aria-label": "Time axis" },
            this.showAll, this.nextHold, this.out, button("Zoom in", "+", () => this.zoom(0.5)), this.reset);
        this.small = element("canvas");
        this.window = element("div", { class: "window" });
        this.overview = element("div", { class: "overview", "aria-hidden": "true" }, this.small, this.window);
        this.ticks = element("canvas");
        this.axis = element("div", { class: "axis", "aria-hidden": "true" }, this.ticks);
        this.canvas = element("canvas", { "aria-hidden": "true" });
        this.grid = element("div", {
            class: "rows", role: "treegrid", "aria-label": `Lanes over time: ${titles}`,
            "aria-describedby": "keys-short",
        });
        this.scroll = element("div", { class: "scroll" }, element("div", { class: "plot" }, this.canvas), this.grid);
        this.card = element("div", { class: "card" });
        this.card.hidden = true;
        this.chart = element("div", { class: "chart" }, this.overview, this.axis, this.scroll, this.card);
        this.said = element("div", { class: "sr", role: "status", "aria-live": "polite" });
        this.live = element("div", {
            class: "live", role: "group",
            "aria-label": `X-ray. ${this.panels.map(panel => panel.said).join(" ")}`,
        },
            element("div", { class: "top" }, element("div", { class: "heading" }, heading), tools),
            this.chart, this.said,
            element("div", { class: "sr", id: "keys-short" },
                "Up and down walk over lanes, left and right over bars. Enter pins, plus and minus zoom."),
            this.legend(), element("div", { class: "more" }, this.tables(), this.keys()));
        root.append(element("style", {}, style), this.live, element("div", { class: "still" }, element("slot", { name: "still" })));
    }

    legend() {
        const box = element("div", { class: "below" });
        const lanes = this.panels.flatMap(panel => panel.lanes);
        const key = (mark, text) => box.append(element("span", { class: "key" }, mark, text));
        const swatch = css => { const made = element("i"); made.style.cssText = css; return made; };
        const symbol = (path, colour) => { const made = icon(path); made.style.color = `var(${colour})`; return made; };
        const hatched = (ground, line) => `background: repeating-linear-gradient(135deg, var(${line}) 0 1.5px, var(${ground}) 1.5px 5px)`;
        if (lanes.some(lane => lane.began.length && lane.first - lane.made > this.limit * 0.008)) {
            key(swatch("height: 0; border-top: 2px dotted var(--quiet); border-radius: 0"), "not yet started");
        }
        key(swatch("background: var(--wait)"), "waiting");
        key(swatch("background: var(--run)"), "running");
        if (this.panels.some(panel => [...panel.bands.values()].some(bands => bands.length))) {
            key(swatch("background: repeating-linear-gradient(135deg, var(--stripe) 0 1.5px, transparent 1.5px 5px), var(--held); border: 1px solid var(--held-line)"), "holding the loop");
        }
        const seen = new Map();
        for (const lane of lanes) for (const span of [...lane.queues, ...lane.holds]) seen.set(span.name, span);
        for (const span of seen.values()) {
            key(swatch(span.queue ? hatched(`--queue-${span.colour}`, `--hatch-${span.colour}`)
                : `height: 6px; background: var(--hold-${span.colour})`), span.name);
        }
        const texts = new Set(lanes.flatMap(lane => lane.marks.map(mark => mark.text)));
        if (texts.has(CANCELLED)) key(symbol(ICONS.cross, "--ink"), CANCELLED);
        if (texts.has(TIMED_OUT)) key(symbol(ICONS.hourglass, "--late"), TIMED_OUT);
        if ([...texts].some(text => ![CANCELLED, TIMED_OUT, NEVER].includes(text))) key(symbol(ICONS.pointer, "--marked"), "marked");
        if (lanes.some(lane => lane.outcome === "pending" && lane.began.length)) key(symbol(ICONS.arrow, "--run"), "not ended");
        for (const panel of this.panels) {
            if (panel.left_out) box.append(element("span", { class: "note" }, `${thousands(panel.left_out)} lanes were left out when this was saved`));
            if (panel.joined) box.append(element("span", { class: "note" }, `steps closer than ${lasting(panel.joined)} are joined`));
        }
        return box;
    }

    tables() {
        const sheets = element("div", { class: "sheets", tabindex: "0", role: "group", "aria-label": "The picture as tables" });
        const details = element("details", {}, element("summary", {}, "The picture in words and tables"), sheets);
        details.addEventListener("toggle", () => {
            if (!details.open || sheets.firstChild) return;
            for (const panel of this.panels) {
                sheets.append(element("p", {}, panel.said), this.holdsTable(panel), this.lanesTable(panel));
            }
        });
        return details;
    }

    holdsTable(panel) {
        const holds = panel.lanes.flatMap(lane => lane.held.map(step => ({ lane, step })));
        holds.sort((a, b) => a.lane.began[a.step] - b.lane.began[b.step]);
        if (!holds.length) return element("p", {}, "No step held the loop.");
        return table(`What held the loop: ${panel.title}`, ["by", "from", "for", "between"], holds.map(({ lane, step }) => [
            lane.name, moment(lane.began[step]), lasting(lane.ended[step] - lane.began[step]), between(lane, step),
        ]));
    }

    lanesTable(panel) {
        return table(`Lanes: ${panel.title}`, ["lane", "from", "until", "ran for", "longest step", "waited longest in", "ended"],
            panel.lanes.map(lane => {
                let ran = 0, longest = 0, wait = 0, waited = "";
                for (let step = 0; step < lane.began.length; step++) {
                    const length = lane.ended[step] - lane.began[step];
                    ran += length;
                    longest = Math.max(longest, length);
                    const pause = (lane.began[step + 1] ?? (lane.outcome === "pending" ? lane.until : 0)) - lane.ended[step];
                    if (pause > wait) { wait = pause; waited = innermost(lane, step); }
                }
                const name = `${"\u2007\u2007".repeat(lane.depth)}${lane.name}`;
                return [name, moment(lane.first), moment(lane.until), lasting(ran), lasting(longest),
                    waited && `${waited}, ${lasting(wait)}`, lane.ending || "well"];
            }));
    }

    keys() {
        const keys = [
            ["↑ ↓", "the lane above or below"], ["← →", "the bar before or after"], ["Enter", "pin what is told about a bar; open or fold a lane"],
            ["+ −", "zoom in and out; also the wheel with Ctrl held down"], ["Shift ← →", "move along the time; also by dragging"],
            ["Home", "the whole time"], ["n", "the next time that the loop was held"], ["Delete", "hide the lane"], ["Esc", "unpin, back to the lane"],
        ];
        return element("details", {}, element("summary", {}, "Keys"),
            element("dl", {}, ...keys.flatMap(([key, does]) => [element("dt", {}, element("kbd", {}, key)), element("dd", {}, does)])));
    }

    dress() {
        const dark = isDark();
        if (dark === this.dark) return;
        this.dark = dark;
        this.live.toggleAttribute("data-dark", dark);
        const style = getComputedStyle(this.live);
        this.colours = new Proxy({}, { get: (kept, name) => kept[name] ??= style.getPropertyValue(`--${name}`).trim() });
        this.patterns = new Map();
        this.plan();
    }

    pattern(name, ground, line, step) {
        if (!this.patterns.has(name)) {
            const scale = devicePixelRatio || 1, size = Math.round(step * scale);
            const tile = element("canvas", { width: size, height: size });
            const pen = tile.getContext("2d");
            if (ground) { pen.fillStyle = ground; pen.fillRect(0, 0, size, size); }
            pen.strokeStyle = line;
            pen.lineWidth = 1.3 * scale;
            for (const shift of [-size, 0, size]) {
                pen.beginPath();
                pen.moveTo(shift - 1, size + 1);
                pen.lineTo(shift + size + 1, -1);
                pen.stroke();
            }
            const made = this.pen.createPattern(tile, "repeat");
            made.setTransform(new DOMMatrix().scale(1 / scale));
            this.patterns.set(name, made);
        }
        return this.patterns.get(name);
    }

    // ------------------------------------------------------------ what the reader does

    listen() {
        const { canvas, scroll, grid } = this;
        new ResizeObserver(() => this.plan()).observe(this.live);
        dressAlong(new WeakRef(this));
        scroll.addEventListener("scroll", () => this.plan(), { passive: true });
        this.chart.addEventListener("wheel", event => this.onWheel(event), { passive: false });
        canvas.addEventListener("pointerdown", event => this.onDown(event));
        canvas.addEventListener("pointermove", event => this.onMove(event));
        canvas.addEventListener("pointerup", event => this.onUp(event));
        canvas.addEventListener("pointercancel", event => this.letGo(event));
        canvas.addEventListener("pointerleave", () => this.hover(null));
        canvas.addEventListener("dblclick", event => this.onDouble(event));
        this.fingers = new Map();
        this.overview.addEventListener("pointerdown", event => { this.overview.setPointerCapture(event.pointerId); this.onOverview(event); });
        this.overview.addEventListener("pointermove", event => { if (event.buttons) this.onOverview(event); });
        grid.addEventListener("keydown", event => this.onKey(event));
        grid.addEventListener("focusin", event => this.onFocus(event));
        grid.addEventListener("focusout", event => { if (!grid.contains(event.relatedTarget)) this.onBlur(); });
        this.live.addEventListener("keydown", event => {
            if (event.key === "Escape" && this.pinned) this.unpin();
        });
    }

    timeAt(event) {
        const box = this.canvas.getBoundingClientRect();
        return this.view[0] + (event.clientX - box.left) / box.width * (this.view[1] - this.view[0]);
    }

    onWheel(event) {
        const along = event.shiftKey ? event.deltaY || event.deltaX : event.deltaX;
        if (event.ctrlKey || event.metaKey) {
            event.preventDefault();
            this.zoom(Math.exp(Math.max(-60, Math.min(60, event.deltaY)) * 0.006), this.timeAt(event), { at: "once" });
        } else if (this.isZoomed && Math.abs(along) > (event.shiftKey ? 0 : Math.abs(event.deltaY))) {
            event.preventDefault();
            this.pan(along / this.wide, { at: "once" });
        }
    }

    onDown(event) {
        if (event.button) return;
        this.canvas.setPointerCapture(event.pointerId);
        this.fingers.set(event.pointerId, { x: event.clientX, y: event.clientY });
        this.dragged = this.fingers.size > 1;
        this.grip();
    }

    grip() { // where a drag or a pinch begins: anew whenever a finger comes or goes
        const [one, two] = this.fingers.values(), view = [...this.view];
        this.began = one && { x: one.x, y: one.y, view, top: this.scroll.scrollTop };
        this.pinch = two && { apart: Math.max(Math.abs(one.x - two.x), 20), view, middle: this.timeAt({ clientX: (one.x + two.x) / 2 }) };
    }

    letGo(event) {
        this.fingers.delete(event.pointerId);
        this.canvas.classList.remove("drags");
        this.grip();
    }

    onMove(event) {
        const finger = this.fingers.get(event.pointerId);
        if (!finger) { this.hover(event); return; }
        finger.x = event.clientX;
        finger.y = event.clientY;
        if (this.pinch) {
            const [one, two] = this.fingers.values();
            const factor = this.pinch.apart / Math.max(Math.abs(one.x - two.x), 20);
            const [from, to] = this.pinch.view, middle = this.pinch.middle;
            this.look([middle - (middle - from) * factor, middle + (to - middle) * factor], { at: "once" });
            return;
        }
        const dx = event.clientX - this.began.x, dy = event.clientY - this.began.y;
        if (!this.dragged && Math.hypot(dx, dy) < 4) return;
        this.dragged = true;
        this.hover(null);
        this.canvas.classList.add("drags");
        const { width } = this.canvas.getBoundingClientRect(); // slides are shown scaled
        const shift = -dx / width * (this.began.view[1] - this.began.view[0]);
        this.look(this.began.view.map(time => time + shift), { at: "once" });
        if (event.pointerType === "mouse") this.scroll.scrollTop = this.began.top - dy * this.wide / width;
    }

    onUp(event) {
        this.letGo(event);
        if (this.dragged) return;
        const found = this.barAt(event);
        if (!found) { this.unpin(); return; }
        if (found.row.kind === "group" && !found.bar) { this.toggle(found.row); return; }
        if (sameBar(this.pinned, found)) this.unpin();
        else this.pin(found.row, found.bar, found.lane);
    }

    onDouble(event) {
        const found = this.barAt(event);
        if (found?.bar) this.show(found.bar.from, found.bar.to);
    }

    onOverview(event) {
        const box = this.overview.getBoundingClientRect();
        const middle = (event.clientX - box.left) / box.width * this.whole[1];
        const half = (this.view[1] - this.view[0]) / 2;
        this.look([middle - half, middle + half], { at: "once" });
    }

    onKey(event) {
        if (event.altKey || event.ctrlKey || event.metaKey) return;
        const row = this.at ?? this.rows[0];
        const acts = {
            ArrowDown: () => this.toRow(row.number + 1), ArrowUp: () => this.toRow(row.number - 1),
            PageDown: () => this.toRow(row.number + 15), PageUp: () => this.toRow(row.number - 15),
            ArrowRight: () => event.shiftKey ? this.pan(0.2) : this.toBar(1),
            ArrowLeft: () => event.shiftKey ? this.pan(-0.2) : this.toBar(-1),
            "+": () => this.zoom(0.5, this.middleOfBar()), "=": () => this.zoom(0.5, this.middleOfBar()),
            "-": () => this.zoom(2, this.middleOfBar()), _: () => this.zoom(2, this.middleOfBar()),
            Home: () => this.look(this.whole), n: () => this.toNextHold(true), N: () => this.toNextHold(true),
            Enter: () => this.enter(), " ": () => this.enter(),
            Delete: () => this.hide(row), Backspace: () => this.hide(row),
            Escape: () => this.escape(),
        };
        const act = acts[event.key];
        if (!act || event.target.closest?.("button")) return;
        event.preventDefault();
        event.stopPropagation();
        act();
    }

    onFocus(event) {
        const made = event.target.closest(".row");
        const row = made?.row;
        if (!row || event.target.closest("button")) return;
        const changed = this.at !== row;
        this.at = row;
        if (!event.target.classList.contains("bar")) { this.bar = null; this.hideCard(); }
        if (changed) this.plan();
    }

    onBlur() {
        this.bar = null;
        this.hideCard();
        this.plan();
    }

    toRow(number, { bar = false } = {}) {
        const rows = this.rows, step = number >= (this.at?.number ?? 0) ? 1 : -1;
        let place = Math.max(0, Math.min(number, rows.length - 1));
        while (rows[place] && rows[place].kind === "answer") place += place + step >= rows.length || place + step < 0 ? -step : step;
        const row = rows[place];
        if (!row) return;
        this.at = row;
        if (!bar) this.bar = null;
        this.reveal(row);
        this.draw();
        if (!bar) { this.hideCard(); this.elements.get(row)?.focus({ preventScroll: true }); }
    }

    barsIn(row) {
        if (row.bars === undefined) row.bars = row.lane ? barsOf(row.lane, row.turn) : [];
        return row.bars;
    }

    toBar(step) {
        const row = this.at;
        if (!row) return;
        const bars = this.barsIn(row);
        if (!bars.length) { if (row.kind === "group" && step > 0 && !row.open) this.toggle(row); return; }
        let place;
        if (this.bar === null) place = step > 0 ? bars.findIndex(bar => bar.to >= this.view[0]) : -1;
        else place = this.bar + step;
        if (place < 0) { this.toRow(row.number); return; }
        if (place >= bars.length) return;
        this.toThisBar(row, place);
    }

    toThisBar(row, place) {
        const bar = this.barsIn(row)[place];
        const wasThere = this.bar !== null && this.at === row;
        this.at = row;
        this.bar = place;
        const [from, to] = this.view, span = to - from;
        if (bar.to < from || bar.from > to || bar.from < from && bar.to - bar.from < span || bar.to > to && bar.to - bar.from < span) {
            const middle = (bar.from + bar.to) / 2;
            this.look([middle - span / 2, middle + span / 2], { at: "once" });
        }
        this.reveal(row);
        this.draw();
        const cell = this.elements.get(row)?.querySelector(".bar");
        cell?.focus({ preventScroll: true });
        const told = this.tell(row.lane, bar, row);
        if (wasThere) this.announce(inWords(told));
        this.showCard(row, bar, row.lane, told);
    }

    middleOfBar() {
        if (this.at === null || this.bar === null) return undefined;
        const bar = this.barsIn(this.at)[this.bar];
        return (bar.from + bar.to) / 2;
    }

    toNextHold(fromKey = false) {
        const now = this.lastHold ?? [-1, -1];
        const every = this.everyHold ??= this.panels.flatMap(panel => panel.lanes.flatMap(
            lane => lane.held.map(step => [panel.number, lane.began[step], lane, step]),
        )).sort((a, b) => a[0] - b[0] || a[1] - b[1]);
        if (!every.length) { this.announce("No step held the loop."); return; }
        const next = every.find(one => one[0] > now[0] || one[0] === now[0] && one[1] > now[1]) ?? every[0];
        this.lastHold = next.slice(0, 2);
        const [, , lane, step] = next;
        const entry = this.entries.find(one => one.kind === "lane" && one.lane === lane);
        this.disclose(entry);
        const place = this.barsIn(entry).findIndex(bar => bar.kind === "step" && bar.place === step);
        this.unpin();
        this.toThisBar(entry, place);
        if (!fromKey) this.announce(inWords(this.tell(lane, this.barsIn(entry)[place], entry)));
    }

    disclose(entry) { // open and unhide whatever keeps a row from being seen
        entry.hidden = false;
        let level = entry.level;
        for (let place = this.entries.indexOf(entry) - 1; place >= 0 && level > 0; place--) {
            const above = this.entries[place];
            if (above.level >= 0 && above.level < level) { above.open = true; level = above.level; }
        }
        this.arrange();
    }

    enter() {
        if (this.bar !== null && this.at) {
            const { at: row } = this, bar = this.barsIn(row)[this.bar];
            if (sameBar(this.pinned, { row, bar, lane: row.lane })) this.unpin(); else this.pin(row, bar, row.lane);
        } else if (this.at?.opens) this.toggle(this.at);
        else this.toBar(1);
    }

    escape() {
        if (this.pinned) this.unpin();
        else if (this.bar !== null && this.at) this.toRow(this.at.number);
    }

    toggle(row) {
        row.open = !row.open;
        this.elements.get(row)?.remove();
        this.elements.delete(row);
        this.arrange();
        this.draw();
        if (this.at === row) this.elements.get(row)?.focus({ preventScroll: true });
        this.announce(`${row.label}: ${row.open ? "open" : "folded"}`);
    }

    hide(row) {
        if (row.level < 0) return;
        const number = row.number;
        row.hidden = true;
        if (row.kind === "group") for (const one of this.entries) if (one.group === row) one.hidden = true;
        this.hideCard();
        this.arrange();
        this.announce(`${row.label} is hidden`);
        this.toRow(Math.min(number, this.rows.length - 1));
    }

    unhide() {
        for (const entry of this.entries) entry.hidden = false;
        this.arrange();
        this.announce("All lanes are shown");
        this.toRow(0);
    }

    reveal(row) {
        const { scroll } = this, foot = row.top + row.height;
        if (row.top < scroll.scrollTop) scroll.scrollTop = Math.max(row.top - 8, 0);
        else if (foot > scroll.scrollTop + scroll.clientHeight) scroll.scrollTop = foot + 8 - scroll.clientHeight;
    }

    announce(text) {
        this.said.textContent = this.said.textContent === text ? `${text}\u00a0` : text;
    }

    // ------------------------------------------------------------ the time that is looked at

    get isZoomed() { return this.view[1] - this.view[0] < (this.whole[1] - this.whole[0]) * 0.9999; }

    zoom(factor, around, options) {
        const [from, to] = this.target ?? this.view;
        const centre = around ?? (from + to) / 2;
        this.look([centre - (centre - from) * factor, centre + (to - centre) * factor], options);
    }

    pan(share, options) {
        const [from, to] = this.target ?? this.view;
        const shift = (to - from) * share;
        this.look([from + shift, to + shift], options);
    }

    show(from, to) {
        const room = Math.max((to - from) * 0.15, SMALLEST_VIEW / 4);
        this.look([from - room, to + room]);
    }

    look([from, to], { at = "" } = {}) {
        const [least, most] = this.whole;
        let span = Math.min(Math.max(to - from, SMALLEST_VIEW), most - least);
        const middle = (from + to) / 2;
        const begin = Math.min(Math.max(middle - span / 2, least), most - span);
        this.target = [begin, begin + span];
        this.hover(null);
        if (at === "once" || this.calm.matches) {
            this.view = this.target;
            this.target = null;
            this.plan();
            return;
        }
        const start = performance.now(), before = [...this.view], goal = this.target;
        const move = now => {
            if (this.target !== goal) return;
            const share = Math.min((now - start) / 170, 1), eased = 1 - (1 - share) ** 3;
            this.view = before.map((time, place) => time + (goal[place] - time) * eased);
            if (share < 1) requestAnimationFrame(move); else this.target = null;
            this.draw();
        };
        requestAnimationFrame(move);
    }

    x(time) { return (time - this.view[0]) * this.perMicro; }

    // ------------------------------------------------------------ what is told

    barAt(event) {
        const box = this.canvas.getBoundingClientRect();
        const scale = this.wide / box.width; // slides are shown scaled
        const x = (event.clientX - box.left) * scale, y = (event.clientY - box.top) * scale + this.scroll.scrollTop;
        const row = this.rowAt(y);
        if (!row || row.level < 0) return null;
        if (row.kind === "group") {
            if (row.open) return null;
            const inside = (y - row.top - 3) / (row.height - 6);
            const lane = row.lanes[Math.floor(inside * row.lanes.length)];
            const bar = lane && this.barIn(lane, x, null, true);
            return { row, lane, bar };
        }
        const strip = Math.floor((y - row.top - LANE + 2) / STRIP);
        const bar = this.barIn(row.lane, x, row.turn, false, row.kind === "lane" && strip >= 0 ? row.lane.strips[strip] : null);
        return bar && { row, lane: row.lane, bar };
    }

    barIn(lane, x, turn, thin, strip = null) {
        const time = this.view[0] + x / this.perMicro, near = 3.5 / this.perMicro;
        if (strip) {
            const span = lane.holds.find(one => one.name === strip && time >= one.from - near && time <= one.to + near);
            if (span) return { kind: "span", span, from: span.from, to: span.to };
        }
        const mark = turn ? null : lane.marks.find(one => Math.abs(one.at - time) < 2 * near);
        if (mark) return { kind: "mark", mark, from: mark.at, to: mark.at };
        const { began, ended } = lane, count = began.length;
        let best = null, distance = near;
        const from = firstAtOrAfter(ended, time - near);
        for (let place = from; place < count && began[place] <= time + near; place++) {
            const away = time < began[place] ? began[place] - time : time > ended[place] ? time - ended[place] : 0;
            if (away < distance || away === 0) { best = place; distance = away; }
            if (away === 0) break;
        }
        const named = place => innermost(lane, place) === turn;
        if (best !== null && (!turn || named(best) || best > 0 && named(best - 1))) {
            return { kind: "step", place: best, from: began[best], to: ended[best] };
        }
        const spans = turn ? [] : [...lane.queues, ...(thin ? lane.holds : [])];
        const span = spans.find(one => time >= one.from && time <= one.to);
        if (span) return { kind: "span", span, from: span.from, to: span.to };
        const before = firstAtOrAfter(ended, time) - 1;
        if (before < 0) {
            return !turn && time >= lane.made - near && count ? { kind: "start", from: lane.made, to: lane.first } : null;
        }
        if (turn && !named(before)) return null;
        if (before + 1 < count) return { kind: "wait", place: before, from: ended[before], to: began[before + 1] };
        return lane.outcome === "pending" && time <= lane.until ? { kind: "wait", place: before, from: ended[before], to: lane.until } : null;
    }

    tell(lane, bar, row) {
        const told = { lane: row?.label ?? lane.name, lines: [], swatch: "var(--wait)" };
        if (row?.kind === "group" || row?.kind === "turn") told.lane = lane.name;
        const length = bar.to - bar.from;
        if (bar.kind !== "mark") told.time = `from ${moment(bar.from)} to ${moment(bar.to)}`;
        const bands = lane.panel.bands.get(lane.loop) ?? [];
        if (bar.kind === "start") {
            told.what = `made, not started for ${lasting(length)}`;
        } else if (bar.kind === "step") {
            const held = length >= lane.panel.held;
            told.what = `${held ? "holds the loop for" : "runs for"} ${lasting(length)}`;
            told.swatch = held ? "var(--held)" : "var(--run)";
            told.between = between(lane, bar.place);
            told.place = placeAt(lane, bar.place) ?? (bar.place ? placeAt(lane, bar.place - 1) : null);
            const names = namesAt(lane, bar.place);
            told.chain = names.length ? names : bar.place ? namesAt(lane, bar.place - 1) : [];
        } else if (bar.kind === "wait") {
            const names = namesAt(lane, bar.place);
            told.what = `waits ${lasting(length)}${names.length ? ` in ${names.at(-1)}` : ""}`;
            told.chain = names;
            told.place = placeAt(lane, bar.place);
            const queue = lane.queues.find(one => one.from < bar.to && one.to > bar.from);
            if (queue) told.lines.push(`${queue.name} meanwhile`);
        } else if (bar.kind === "span") {
            told.what = `${bar.span.name} for ${lasting(length)}`;
            told.swatch = bar.span.queue ? `var(--queue-${bar.span.colour})` : `var(--hold-${bar.span.colour})`;
        } else {
            told.what = bar.mark.text;
            told.time = `at ${moment(bar.from)}`;
            told.swatch = bar.mark.text === TIMED_OUT ? "var(--late)" : "var(--ink)";
        }
        if (bar.kind === "wait" || bar.kind === "start" || bar.kind === "span") {
            const lost = shared(bands, bar.from, bar.to);
            if (lost) told.warn = `the loop was held for ${lasting(lost)} of that`;
        }
        return told;
    }

    hover(event) {
        if (this.pinned) return;
        const found = event && this.barAt(event);
        if (!found?.bar) {
            if (found?.row?.kind === "group") return;
            if (this.bar === null || event) this.hideCard();
            return;
        }
        if (sameBar(this.told, found)) { this.told.event = { x: event.clientX }; this.placeCard(); return; }
        this.showCard(found.row, found.bar, found.lane, this.tell(found.lane, found.bar, found.row), event);
    }

    pin(row, bar, lane) {
        this.pinned = { row, bar, lane };
        const told = this.tell(lane, bar, row);
        this.showCard(row, bar, lane, told);
        this.announce(`Pinned. ${inWords(told)}`);
        this.plan();
    }

    unpin() {
        if (!this.pinned) return;
        const within = this.card.contains(this.host.shadowRoot.activeElement);
        this.pinned = null;
        this.hideCard();
        if (within && this.at) this.elements.get(this.at)?.focus({ preventScroll: true });
        this.plan();
    }

    hideCard() {
        if (this.pinned) return;
        this.card.hidden = true;
        this.told = null;
    }

    showCard(row, bar, lane, told, event = null) {
        if (this.pinned && !sameBar(this.pinned, { row, bar, lane })) return;
        const line = (kind, text) => element("p", { class: kind }, text);
        const { card } = this;
        const chain = [told.lane, ...(told.chain ?? [])].filter((name, place, all) => name !== all[place - 1]);
        const parts = [line("what", told.what), line("aside", told.lane), line("time", told.time)];
        if (chain.length > 1) parts.push(line("chain", chain.join(" → ")));
        for (const text of told.lines) parts.push(line("aside", text));
        if (told.warn) parts.push(line("warn", told.warn));
        if (told.between || told.place) parts.push(line("place", told.between || told.place.told));
        if (told.place?.text) parts.push(element("code", {}, told.place.text));
        card.replaceChildren(...parts);
        this.swatch = told.swatch;
        card.style.cssText = `--swatch: ${told.swatch}`;
        card.classList.toggle("pinned", Boolean(this.pinned));
        if (this.pinned) {
            card.append(element("button", { type: "button", class: "close", "aria-label": "Unpin", onclick: () => this.unpin() }, icon(ICONS.cross, { width: 12, height: 12 })));
        }
        card.hidden = false;
        this.told = { row, bar, lane, event: event && { x: event.clientX } };
        this.placeCard();
    }

    placeCard() {
        if (this.card.hidden || !this.told) return;
        if (this.pinned) { this.card.style.cssText = `--swatch: ${this.swatch}; width: auto`; return; }
        const { row, bar, event } = this.told, { card, chart, scroll } = this;
        const box = chart.getBoundingClientRect();
        const wide = card.offsetWidth, high = card.offsetHeight;
        const from = this.labels + Math.max(0, Math.min(this.x(bar.from), this.wide)), to = this.labels + Math.max(0, Math.min(this.x(bar.to), this.wide));
        const wanted = event ? (event.x - box.left) * chart.offsetWidth / box.width + 14 : Math.min(from + 8, (from + to) / 2);
        const left = Math.max(0, Math.min(wanted, chart.offsetWidth - wide));
        const top = scroll.offsetTop + row.top - scroll.scrollTop;
        const foot = top + row.height + 6;
        const above = top - high - 6;
        const down = foot + high <= chart.offsetHeight + 160 || above < 0;
        card.style.left = `${left}px`;
        card.style.top = `${down ? foot : above}px`;
        const seen = top + row.height > scroll.offsetTop - 4 && top < scroll.offsetTop + scroll.clientHeight;
        card.style.visibility = seen ? "" : "hidden";
    }

    // ------------------------------------------------------------ drawing

    plan() {
        if (this.planned) return;
        this.planned = requestAnimationFrame(() => this.draw());
    }

    draw() {
        cancelAnimationFrame(this.planned);
        this.planned = 0;
        const width = this.chart.clientWidth;
        if (!width || !this.colours) return;
        this.measure(width);
        const high = this.scroll.clientHeight, top = this.scroll.scrollTop;
        this.pen = sized(this.canvas, this.wide, high);
        const { pen, colours } = this;
        pen.clearRect(0, 0, this.wide, high);
        pen.save();
        pen.translate(0, -top);
        const first = Math.max(firstAtOrAfter(this.tops, top + 1e-6) - 1, 0);
        const shown = [];
        for (let place = first; place < this.rows.length && this.rows[place].top < top + high; place++) shown.push(this.rows[place]);
        this.drawRules(top, high);
        this.drawBands(top, high);
        for (const row of shown) this.drawBranch(row, top, high);
        for (const row of shown) {
            if (row === this.at && this.focused()) { pen.fillStyle = colours.picked; pen.globalAlpha = 0.5; pen.fillRect(0, row.top, this.wide, row.height); pen.globalAlpha = 1; }
            if (row.kind === "lane") this.drawLane(row);
            else if (row.kind === "turn") this.drawTurn(row);
            else if (row.kind === "group" && !row.open) this.drawGroup(row);
        }
        this.drawAnswers(top, high);
        pen.restore();
        this.drawAxis();
        this.drawOverview();
        this.putRows(shown);
        this.placeCard();
        this.reset.disabled = this.out.disabled = !this.isZoomed;
        this.host.dataset.drawn = Number(this.host.dataset.drawn ?? 0) + 1;
    }

    focused() { return this.host.shadowRoot.activeElement?.closest(".rows") === this.grid; }

    measure(width) {
        if (this.measured !== width) {
            const pen = this.canvas.getContext("2d");
            let widest = 0;
            const seen = new Set();
            for (const entry of this.entries) {
                if (entry.level < 0) continue;
                const label = entry.kind === "group" ? `${entry.label} × ${thousands(entry.count)}` : entry.label;
                const key = `${entry.level} ${label}`;
                if (seen.has(key) || seen.size > 400) continue;
                seen.add(key);
                pen.font = `${entry.kind === "turn" ? 12 : 13}px ${FONT}`;
                widest = Math.max(widest, pen.measureText(label).width + indent(entry.level) + 38);
            }
            this.labels = Math.round(Math.min(Math.max(widest, 70), width * (width < 520 ? 0.36 : 0.4)));
            this.live.style.setProperty("--labels", `${this.labels}px`);
            this.overviewHigh = Math.min(this.panels.length, 4) * 16 + 4;
            this.live.style.setProperty("--overview", `${this.overviewHigh}px`);
            this.measured = width;
            this.patterns = new Map();
        }
        this.wide = Math.max(this.scroll.clientWidth - this.labels, 40);
        this.perMicro = this.wide / (this.view[1] - this.view[0]);
        this.setTicks();
    }

    drawRules(top, high) {
        const { pen, colours } = this;
        pen.strokeStyle = colours.rule;
        pen.lineWidth = 1;
        pen.beginPath();
        for (const tick of this.tickTimes) {
            const x = Math.round(this.x(tick)) + 0.5;
            pen.moveTo(x, top);
            pen.lineTo(x, top + high);
        }
        pen.stroke();
        pen.fillStyle = colours.card;
        for (const row of this.headers) pen.fillRect(0, row.top, this.wide, row.height);
    }

    setTicks() {
        const [from, to] = this.view;
        const raw = (to - from) / Math.max(this.wide / TICK_EVERY, 2);
        const power = 10 ** Math.floor(Math.log10(raw));
        const step = [1, 2, 5, 10].map(one => one * power).find(one => one >= raw);
        this.tickTimes = [];
        for (let tick = Math.ceil(from / step - 1e-9) * step; tick <= to; tick += step) this.tickTimes.push(tick || 0);
        this.tickStep = step;
    }

    drawAxis() {
        const pen = sized(this.ticks, this.wide, 20);
        pen.clearRect(0, 0, this.wide, 20);
        pen.font = `11.5px ${FONT}`;
        pen.fillStyle = this.colours.quiet;
        pen.textBaseline = "middle";
        const { tickTimes, tickStep: step } = this;
        const inSeconds = this.view[1] > 5e6 && step >= 1e5;
        const unit = inSeconds ? 1e6 : 1000, name = inSeconds ? " s" : " ms";
        const digits = Math.max(0, -Math.floor(Math.log10(step / unit) + 1e-9));
        let free = -Infinity;
        for (const tick of tickTimes) {
            const text = `${(tick / unit).toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits })}${name}`;
            const size = pen.measureText(text).width;
            const left = Math.max(this.x(tick) - size / 2, 0);
            if (left < free || left + size > this.wide) continue;
            pen.fillText(text, left, 10);
            free = left + size + 10;
        }
    }

    drawOverview() {
        const wide = this.wide, high = this.overviewHigh;
        const { colours } = this;
        if (this.overviewKey !== `${wide} ${colours.card}`) {
            this.overviewKey = `${wide} ${colours.card}`;
            const pen = sized(this.small, wide, high);
            pen.clearRect(0, 0, wide, high);
            const each = (high - 4) / this.panels.length, scale = wide / this.whole[1];
            this.panels.forEach((panel, number) => {
                const foot = 2 + each * (number + 1) - 1, room = each - 3;
                const counts = new Float64Array(Math.ceil(wide) + 2);
                for (const lane of panel.lanes) {
                    if (!lane.began.length) continue;
                    counts[Math.floor(lane.first * scale)]++;
                    counts[Math.min(Math.floor(lane.until * scale) + 1, counts.length - 1)]--;
                }
                let now = 0, most = 1;
                const alive = counts.map(change => { now += change; most = Math.max(most, now); return now; });
                pen.fillStyle = colours.wait;
                pen.beginPath();
                pen.moveTo(0, foot);
                alive.forEach((count, x) => { pen.lineTo(x, foot - count / most * room); pen.lineTo(x + 1, foot - count / most * room); });
                pen.lineTo(wide, foot);
                pen.fill();
                pen.fillStyle = colours.held;
                for (const bands of panel.bands.values()) {
                    for (const [from, to] of bands) pen.fillRect(from * scale, foot - room, Math.max((to - from) * scale, 1.5), room);
                }
            });
        }
        const share = time => time / this.whole[1] * 100;
        this.window.hidden = !this.isZoomed;
        this.window.style.left = `${share(this.view[0])}%`;
        this.window.style.width = `max(${share(this.view[1] - this.view[0])}%, 6px)`;
    }

    drawBands(top, high) {
        const { pen, colours } = this;
        for (const panel of this.panels) {
            for (const [loop, bands] of panel.bands) {
                const extent = panel.extents.get(loop);
                if (!extent || extent[1] < top || extent[0] > top + high) continue;
                const from = Math.max(extent[0], top), to = Math.min(extent[1], top + high);
                pen.fillStyle = colours.band;
                for (const [began, ended] of bands) {
                    if (ended < this.view[0] || began > this.view[1]) continue;
                    const left = Math.max(this.x(began), -2);
                    pen.fillRect(left, from, Math.min(this.x(ended), this.wide + 2) - left, to - from);
                }
            }
        }
    }

    drawBranch(row, top, high) {
        const parent = row.parent;
        if (row.kind !== "lane" || row.group || !parent || !this.hasRow(parent)) return;
        const x = this.x(row.lane.made);
        if (x < 0 || x > this.wide) return;
        const { pen, colours } = this;
        pen.strokeStyle = colours.branch;
        pen.lineWidth = 1;
        pen.beginPath();
        pen.moveTo(x, Math.max(parent.top + LANE / 2, top - 4));
        pen.lineTo(x, Math.min(row.top + LANE / 2, top + high + 4));
        pen.stroke();
    }

    rect(from, to, y, high, fill, least = 0) {
        let left = this.x(from), right = this.x(to);
        if (right < -2 || left > this.wide + 2) return false;
        if (right - left < least) right = left + least;
        left = Math.max(left, -3);
        right = Math.min(right, this.wide + 3);
        this.pen.fillStyle = fill;
        this.pen.fillRect(left, y, right - left, high);
        return true;
    }

    drawRuns(lane, y, high, turn = null) {
        const { pen, colours } = this, { began, ended } = lane;
        const from = firstAtOrAfter(ended, this.view[0]), to = firstAtOrAfter(began, this.view[1]);
        if (from >= to) return;
        pen.fillStyle = colours.run;
        const named = place => innermost(lane, place) === turn;
        const span = (Math.min(ended[to - 1], this.view[1]) - Math.max(began[from], this.view[0])) * this.perMicro;
        if (!turn && to - from > 50 && (to - from) * LEAST > 0.4 * span) { this.drawShades(lane, y, high, from, to); return; }
        let left = NaN, right = NaN;
        for (let place = from; place < to; place++) {
            if (turn && (ended[place] - began[place] >= lane.panel.held || !(named(place) || place && named(place - 1)))) continue;
            const a = this.x(began[place]), b = Math.max(this.x(ended[place]), a + LEAST);
            if (a <= right + 0.25) { right = Math.max(right, b); continue; }
            if (right > left) pen.fillRect(left, y, right - left, high);
            left = a;
            right = b;
        }
        if (right > left) pen.fillRect(Math.max(left, -3), y, Math.min(right, this.wide + 3) - Math.max(left, -3), high);
    }

    drawShades(lane, y, high, from, to) { // the darker, the larger the share of a column that it ran
        const { pen } = this, { began, ended } = lane;
        const size = 1.5, columns = Math.ceil(this.wide / size), ran = new Float32Array(columns);
        for (let place = from; place < to; place++) {
            const a = Math.max(this.x(began[place]), 0) / size, b = Math.min(this.x(ended[place]), this.wide) / size;
            let column = Math.floor(a);
            for (let left = a; left < b && column < columns; column++) {
                const right = Math.min(b, column + 1);
                ran[column] += right - left;
                left = right;
            }
            if (b <= a && column < columns) ran[column] += 0.01;
        }
        for (let column = 0; column < columns;) {
            const level = ran[column] ? Math.ceil(Math.min(ran[column], 1) * 6 - 1e-6) || 1 : 0;
            let after = column + 1;
            while (after < columns && (ran[after] ? Math.ceil(Math.min(ran[after], 1) * 6 - 1e-6) || 1 : 0) === level) after++;
            if (level) {
                pen.globalAlpha = 0.18 + 0.82 * level / 6;
                pen.fillRect(column * size, y, (after - column) * size, high);
            }
            column = after;
        }
        pen.globalAlpha = 1;
    }

    drawHeld(lane, y, high) {
        const { pen, colours } = this;
        for (const [from, to] of lane.lost) {
            if (!this.rect(from, to, y, high, colours.held, 2.5)) continue;
            const left = Math.max(this.x(from), -3), wide = Math.min(this.x(to), this.wide + 3) - left;
            if (wide < 6 || high < 5) continue;
            pen.fillStyle = this.pattern("held", "", colours.stripe, 6);
            pen.fillRect(left, y, wide, high);
            pen.strokeStyle = colours["held-line"];
            pen.lineWidth = 1;
            pen.strokeRect(left + 0.5, y + 0.5, wide - 1, high - 1);
        }
    }

    queuePattern(colour) {
        const { colours } = this;
        return this.pattern(`queue-${colour}`, colours[`queue-${colour}`], colours[`hatch-${colour}`], 7);
    }

    dots(from, to, y, thin = false) {
        if ((to - from) * this.perMicro < 5) return;
        const { pen } = this;
        pen.strokeStyle = this.colours[thin ? "branch" : "quiet"];
        pen.lineWidth = thin ? 1 : 1.5;
        pen.setLineDash([1.5, 3]);
        pen.beginPath();
        pen.moveTo(Math.max(this.x(from), -10), y);
        pen.lineTo(Math.min(this.x(to), this.wide + 10), y);
        pen.stroke();
        pen.setLineDash([]);
    }

    drawLane(row) {
        const { lane } = row, { colours, pen } = this;
        const high = LANE - 8, y = row.top + 4, middle = y + high / 2;
        const steps = lane.began.length;
        this.dots(lane.made, steps ? lane.first : lane.until, middle);
        if (steps) this.rect(lane.first, lane.until, y, high, colours.wait);
        for (const span of lane.queues) {
            if (this.rect(span.from, span.to, y, high, this.queuePattern(span.colour), LEAST)) this.outline(span, y, high, `hatch-${span.colour}`);
        }
        this.drawRuns(lane, y, high);
        this.drawHeld(lane, y, high);
        lane.strips.forEach((name, place) => {
            for (const span of lane.holds) {
                if (span.name === name) this.rect(span.from, span.to, y + high + 1.5 + place * STRIP, STRIP - 1, colours[`hold-${span.colour}`], 2);
            }
        });
        this.drawMarks(lane, middle, y, 9);
        this.drawWords(lane, y, high, middle);
    }

    outline(span, y, high, colour) {
        const left = this.x(span.from), wide = this.x(span.to) - left;
        if (wide < 6) return;
        this.pen.strokeStyle = this.colours[colour];
        this.pen.lineWidth = 1;
        this.pen.strokeRect(Math.max(left, -3) + 0.5, y + 0.5, Math.min(wide, this.wide + 6 - left) - 1, high - 1);
    }

    drawTurn(row) {
        const { lane, turn } = row, high = SLIM - 8, y = row.top + 4;
        const { began, ended } = lane, last = began.length - 1;
        const from = Math.max(firstAtOrAfter(ended, this.view[0]) - 1, 0), to = Math.min(firstAtOrAfter(began, this.view[1]), last + 1);
        let open = NaN, close = NaN;
        for (let place = from; place < to; place++) {
            if (innermost(lane, place) !== turn) continue;
            const until = place < last ? began[place + 1] : lane.outcome === "pending" ? lane.until : null;
            if (until === null) continue;
            if (this.x(ended[place]) - this.x(close) < 0.7) { close = until; continue; }
            if (close >= open) this.rect(open, close, y, high, this.colours.wait, 1);
            open = ended[place];
            close = until;
        }
        if (close >= open) this.rect(open, close, y, high, this.colours.wait, 1);
        this.drawRuns(lane, y, high, turn);
    }

    drawGroup(row) {
        const room = row.height - 6, count = row.lanes.length, each = room / count;
        const { colours, pen } = this;
        const snap = y => Math.round(y * devicePixelRatio) / devicePixelRatio;
        row.lines ??= this.linesOf(row.lanes, Math.min(count, Math.floor(room)));
        const shown = row.lines.length;
        for (let line = 0; line < shown; line++) {
            const lane = row.lines[line];
            const y = snap(row.top + 3 + line * room / shown), foot = snap(row.top + 3 + (line + 1) * room / shown);
            const thick = foot - y - (each >= 3 ? 1 : 0);
            const steps = lane.began.length;
            this.dots(lane.made, steps ? lane.first : lane.until, y + thick / 2, true);
            if (steps) this.rect(lane.first, lane.until, y, thick, colours.wait);
            for (const span of lane.queues) this.rect(span.from, span.to, y, thick, this.queuePattern(span.colour), 1);
            for (const span of lane.holds) this.rect(span.from, span.to, y, thick, colours[`hold-${span.colour}`], 1);
            this.drawRuns(lane, y, thick);
            this.drawHeld(lane, y, thick);
            if (each >= 3) this.drawMarks(lane, y + thick / 2, y, Math.min(thick, 7));
        }
        row.fates ??= this.fates(row.lanes, count === row.count);
        row.ends ??= largest(row.lanes, lane => lane.ends);
        const words = row.fates;
        pen.font = `11.5px ${FONT}`;
        pen.textBaseline = "middle";
        const x = this.x(row.ends);
        words.forEach(([text, colour], place) => {
            pen.fillStyle = colours[colour];
            if (x + 12 < this.wide) pen.fillText(text, x + 12, row.top + row.height / 2 + (place - (words.length - 1) / 2) * 15);
        });
    }

    linesOf(lanes, count) { // of lanes that share a pixel, the one that tells most
        if (count === lanes.length) return lanes;
        return Array.from({ length: count }, (_, line) => {
            const together = lanes.slice(Math.floor(line * lanes.length / count), Math.floor((line + 1) * lanes.length / count));
            return together.find(lane => lane.held.length || lane.outcome !== "done" || lane.marks.length) ?? together[0];
        });
    }

    fates(lanes, all = true) {
        const kinds = [
            ["timed out", "late", lanes.filter(timedOut)],
            ["failed", "failed", lanes.filter(lane => lane.outcome === "failed" && !(timedOut(lane) && lane.error === "TimeoutError"))],
            ["cancelled", "quiet", lanes.filter(lane => lane.outcome === "cancelled")],
            ["not ended", "quiet", lanes.filter(lane => lane.outcome === "pending" && lane.began.length)],
            ["not started", "quiet", lanes.filter(lane => !lane.began.length)],
        ];
        return kinds.filter(([, , some]) => some.length)
            .map(([word, colour, some]) => [`${all ? "" : "of those kept "}${thousands(some.length)} ${word}`, colour]);
    }

    drawMarks(lane, middle, top, size) {
        const { pen, colours } = this;
        const draw = (shape, x, y, colour, scale = size / 12) => {
            if (x < -10 || x > this.wide + 10) return;
            pen.save();
            pen.translate(x - 8 * scale, y - 8 * scale);
            pen.scale(scale, scale);
            pen.lineJoin = "round";
            pen.strokeStyle = colours.card;
            pen.lineWidth = 2.4 / scale;
            pen.stroke(shape);
            pen.fillStyle = colour;
            pen.fill(shape);
            pen.restore();
        };
        if (lane.outcome === "pending" && lane.began.length) draw(PATHS.arrow, this.x(lane.until), middle, colours.run, size / 10);
        for (const mark of lane.marks) {
            const x = this.x(mark.at);
            if (mark.text === TIMED_OUT) draw(PATHS.hourglass, x, middle, colours.late, size / 9);
            else if (mark.text === CANCELLED || mark.text === NEVER) draw(PATHS.cross, x, middle, colours.ink, size / 8);
            else draw(PATHS.pointer, x, top, colours.marked);
        }
    }

    drawWords(lane, y, high, middle) {
        const { pen, colours } = this;
        pen.textBaseline = "middle";
        const text = (words, x, colour, font = 11.5, weight = "") => {
            pen.font = `${weight} ${font}px ${FONT}`;
            pen.fillStyle = colour;
            pen.fillText(words, x, middle + 0.5);
        };
        let free = this.x(lane.ends) + (lane.marks.length || lane.outcome === "pending" ? 13 : 8);
        for (const [from, to] of lane.lost) {
            const left = Math.max(this.x(from), 0), right = Math.min(this.x(to), this.wide);
            if (right <= 0 || left >= this.wide) continue;
            const length = lasting(to - from), full = `loop held ${length}`;
            const size = this.sizeOf(full, "600"), short = this.sizeOf(length, "600");
            if (right - left > short + 10) {
                const words = right - left > size + 12 ? full : length;
                const wide = words === full ? size : short, x = (left + right - wide) / 2;
                pen.fillStyle = colours.held;
                pen.fillRect(x - 4, y + 1, wide + 8, high - 2);
                text(words, x, colours["on-held"], 11.5, "600");
            } else if (to >= lane.ends - 1 && right + 8 + size < this.wide) {
                text(full, free, colours["held-ink"], 11.5, "600");
                free += size + 10;
            } else {
                const next = lane.began[firstAtOrAfter(lane.began, to)] ?? lane.until;
                if (this.x(Math.min(next, lane.until)) - right > short + 8) text(length, right + 4, colours["held-ink"], 11.5, "600");
            }
        }
        if (lane.ending && free < this.wide && free > -40) text(lane.ending, free, colours[lane.outcome === "failed" ? "failed" : "quiet"]);
        let taken = -Infinity;
        for (const mark of lane.marks) {
            if ([CANCELLED, TIMED_OUT, NEVER].includes(mark.text)) continue;
            const x = this.x(mark.at) + 8;
            if (x <= taken || x <= 0 || x >= this.wide) continue;
            const size = this.sizeOf(mark.text);
            const step = firstAtOrAfter(lane.began, mark.at), next = lane.began[step] ?? Infinity;
            if (x + size < this.wide && this.x(Math.min(next, Math.max(lane.until, mark.at + 1e9))) > x + size) {
                text(mark.text, x, colours.marked);
                taken = x + size + 6;
            }
        }
    }

    sizeOf(words, weight = "") { // in pixels; the same few words are asked for in each frame
        const key = weight + words;
        if (!this.sizes.has(key)) {
            this.pen.font = `${weight} 11.5px ${FONT}`;
            this.sizes.set(key, this.pen.measureText(words).width);
        }
        return this.sizes.get(key);
    }

    drawAnswers(top, high) {
        const { pen, colours } = this;
        for (const panel of this.panels) {
            const { from, foot: to } = panel;
            if (to < top || from > top + high) continue;
            const x = this.x(panel.end);
            if (x < -200 || x > this.wide + 5) continue;
            pen.strokeStyle = colours.ink;
            pen.lineWidth = 1.2;
            pen.setLineDash([1.5, 3]);
            pen.beginPath();
            pen.moveTo(x, Math.max(from, top - 4));
            pen.lineTo(x, Math.min(to, top + high + 4));
            pen.stroke();
            pen.setLineDash([]);
            const words = `${panel.verb} after ${lasting(panel.end)}`;
            pen.font = `11.5px ${FONT}`;
            pen.textBaseline = "middle";
            const size = pen.measureText(words).width;
            const left = x + 6 + size < this.wide ? x + 6 : x - 6 - size;
            pen.fillStyle = colours.quiet;
            pen.fillText(words, left, to - ANSWER / 2);
        }
    }

    // ------------------------------------------------------------ rows of the tree, as elements

    putRows(shown) {
        const keep = new Set(shown.filter(row => row.kind !== "answer"));
        if (this.at && this.hasRow(this.at)) keep.add(this.at);
        for (const [entry, made] of this.elements) {
            if (!keep.has(entry)) { made.remove(); this.elements.delete(entry); }
        }
        const inOrder = [...keep].sort((a, b) => a.number - b.number);
        const reached = this.at && keep.has(this.at) ? this.at : inOrder[0];
        for (const row of inOrder) {
            let made = this.elements.get(row);
            if (!made) { made = this.rowElement(row); this.elements.set(row, made); this.insert(row, made); }
            made.style.top = `${row.top}px`;
            made.style.height = `${row.height}px`;
            made.setAttribute("aria-rowindex", row.number + 1);
            made.tabIndex = row === reached && this.bar === null ? 0 : -1;
            if (row.opens) {
                made.setAttribute("aria-expanded", row.open);
                made.querySelector(".twist").classList.toggle("open", row.open);
            }
            this.putBar(row, made, reached);
        }
    }

    insert(row, made) {
        let after = null;
        for (const one of this.grid.children) {
            if (one.row.number > row.number) { after = one; break; }
        }
        this.grid.insertBefore(made, after);
    }

    putBar(row, made, reached) {
        const cell = made.querySelector(".bar");
        if (!cell) return;
        const here = row === reached && this.bar !== null ? this.barsIn(row)[this.bar] : null;
        const pinned = this.pinned?.row === row ? this.pinned.bar : null;
        const bar = here ?? pinned;
        cell.tabIndex = here ? 0 : -1;
        cell.classList.toggle("pinned", Boolean(pinned));
        if (bar) {
            const left = Math.max(0, Math.min(this.x(bar.from), this.wide - 4)), right = Math.max(left + 4, Math.min(this.x(bar.to), this.wide));
            cell.style.cssText = `left:${this.labels + left}px;width:${right - left}px;top:4px;height:${(row.kind === "turn" ? SLIM : row.kind === "group" ? row.height : LANE) - 8}px`;
            if (cell.shows === bar) return;
            cell.shows = bar;
            const { lane } = pinned && !here ? this.pinned : row;
            cell.replaceChildren(element("span", { class: "sr" }, inWords(this.tell(lane, bar, row))));
        } else if (cell.shows || !cell.firstChild) {
            cell.shows = null;
            cell.style.cssText = `left:${this.labels}px;width:1px;top:4px;height:10px`;
            cell.replaceChildren(element("span", { class: "sr" }, this.summary(row)));
        }
    }

    summary(row) {
        if (row.kind === "group") {
            const fates = this.fates(row.lanes, row.lanes.length === row.count).map(([text]) => text);
            return [`${thousands(row.count)} tasks`, ...fates].join(", ");
        }
        if (row.kind === "turn") {
            const waits = this.barsIn(row), whole = waits.reduce((sum, bar) => sum + bar.to - bar.from, 0);
            return `waits ${thousands(waits.length)} ${waits.length === 1 ? "time" : "times"}, ${lasting(whole)} together`;
        }
        const { lane } = row, parts = [];
        if (lane.began.length) parts.push(`from ${moment(lane.first)} to ${moment(lane.until)}`, `${thousands(lane.began.length)} steps`);
        if (lane.held.length) {
            const longest = largest(lane.held, place => lane.ended[place] - lane.began[place]);
            parts.push(`held the loop ${lane.held.length === 1 ? "once" : `${lane.held.length} times`}, longest ${lasting(longest)}`);
        }
        for (const name of new Set([...lane.queues, ...lane.holds].map(span => span.name))) parts.push(name);
        for (const mark of lane.marks) parts.push(`${mark.text} at ${moment(mark.at)}`);
        if (lane.ending) parts.push(lane.ending);
        return parts.join(", ");
    }

    rowElement(row) {
        const kinds = { panel: "panel", server: "server", turn: "slim", group: row.open ? "slim" : "" };
        const made = element("div", { class: `row ${kinds[row.kind] ?? ""} ${row.opens ? "opens" : ""}`, role: "row", "aria-level": Math.max(row.level, 0) + 1, tabindex: "-1" });
        made.row = row;
        const name = element("div", { class: "name", role: "rowheader", title: row.label });
        name.setAttribute("aria-label", row.kind === "group" ? `${row.label} × ${thousands(row.count)}` : row.label);
        name.style.paddingLeft = `${row.level < 0 ? 0 : indent(row.level)}px`;
        if (row.level >= 0) {
            const twist = icon(ICONS.twist);
            twist.setAttribute("class", `twist ${row.opens ? "" : "none"}`);
            name.append(twist);
        }
        name.append(element("span", { class: "text" }, row.label));
        if (row.kind === "group") name.append(element("span", { class: "many" }, `× ${thousands(row.count)}`));
        if (row.level >= 0 && row.kind !== "turn") {
            name.append(element("button", {
                type: "button", class: "hide", tabindex: "-1", "aria-label": `Hide ${row.label}`, title: "Hide this lane",
                onclick: event => { event.stopPropagation(); this.hide(row); },
            }, icon(ICONS.cross, { width: 10, height: 10 })));
        }
        name.addEventListener("click", () => {
            this.at = row;
            this.bar = null;
            if (row.opens) this.toggle(row); else this.plan();
            this.elements.get(row)?.focus({ preventScroll: true });
        });
        made.append(name);
        if (row.level >= 0) made.append(element("div", { class: "bar", role: "gridcell", tabindex: "-1" }));
        return made;
    }
}

// ---------------------------------------------------------------- helpers

const largest = (items, of, least = 0) => items.reduce((most, item) => Math.max(most, of(item)), least);

const indent = level => Math.min(Math.max(level, 0), 9) * 13;

function sameBar(one, other) { // each with its row and lane: many bars begin and end together
    if (!one?.bar || !other?.bar) return false;
    const alike = name => one.bar[name] === other.bar[name];
    return one.row === other.row && one.lane === other.lane && ["kind", "from", "to", "place", "span", "mark"].every(alike);
}

function between(lane, step) { // the lines between which a step ran
    const before = step ? placeAt(lane, step - 1)?.told : "";
    const after = placeAt(lane, step)?.told;
    if (before && after) return before === after ? before : `from ${before} to ${after}`;
    if (after) return `up to ${after}`;
    return before ? `after ${before}` : "";
}

function inWords(told) {
    const chain = (told.chain ?? []).length > 1 ? `in ${told.chain.join(", in it ")}` : "";
    const parts = [`${told.lane}: ${told.what}`, told.time, chain, ...told.lines, told.warn, told.between || told.place?.told];
    return `${parts.filter(Boolean).join(", ")}.`;
}

function table(caption, heads, rows) {
    const body = element("tbody");
    const add = some => body.append(...some.map(cells => element("tr", {}, ...cells.map((text, place) =>
        place ? element("td", place >= 3 && !/^[\d.]/.test(text) ? { class: "words" } : {}, text) : element("th", { scope: "row" }, text)))));
    add(rows.slice(0, ROWS_IN_TABLE));
    const made = element("table", {}, element("caption", {}, caption),
        element("thead", {}, element("tr", {}, ...heads.map(text => element("th", { scope: "col" }, text)))), body);
    if (rows.length <= ROWS_IN_TABLE) return made;
    const more = element("button", {
        type: "button", onclick: () => { add(rows.slice(ROWS_IN_TABLE)); more.remove(); },
    }, `${thousands(rows.length - ROWS_IN_TABLE)} more rows`);
    return element("div", {}, made, more);
}

function sized(canvas, wide, high) { // a pen for a canvas of that size in pixels of the page
    const scale = devicePixelRatio || 1;
    const width = Math.round(wide * scale), height = Math.round(high * scale);
    if (canvas.width !== width || canvas.height !== height) {
        canvas.width = width;
        canvas.height = height;
        canvas.style.width = `${wide}px`;
        canvas.style.height = `${high}px`;
    }
    const pen = canvas.getContext("2d");
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    return pen;
}

async function mount(host) {
    if (host.dataset.state) return;
    host.dataset.state = "loading";
    try {
        const data = await unpacked(host.dataset.recording);
        new Explorer(host, data);
        host.dataset.state = "ready";
    } catch (error) { // the still picture stays
        host.dataset.state = "failed";
        host.shadowRoot?.replaceChildren(element("slot", { name: "still" }));
        console.warn("looplab: the picture can't be explored here", error);
    }
}

function mountAll() {
    const roots = new Set([document, document.currentScript?.getRootNode() ?? document]);
    for (const root of roots) root.querySelectorAll?.(`.${HOST}:not([data-state])`).forEach(mount);
}

mountAll();
if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", mountAll);

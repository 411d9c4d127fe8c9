// A run's place in the queue, pausing it, and the list of its restarts.

import { call } from "./api.js";
import { byId, el } from "./dom.js";
import { moment } from "./format.js";
import { _, explain } from "./i18n.js";
import { toast } from "./shell.js";

const CAN_PAUSE = ["queued", "preparing", "running"];
const HAS_PLACE = ["queued", "paused"];
// Events of the past are replayed one after the other; only the last state is asked about.
const SETTLED_MS = 150;

export class Order {
  /** showState is called with the state that the server answers. */
  constructor(taskId, showState) {
    this.path = `/api/tasks/${taskId}`;
    this.taskId = taskId;
    this.showState = showState;
    byId("pause").addEventListener("click", () => this.pause());
    byId("order-set").addEventListener("click", () => this.put({ priority: byId("order-priority").valueAsNumber }));
    byId("order-front").addEventListener("click", () => this.put({ front: true }));
  }

  /** Show what can be done in this state. */
  state(state) {
    byId("pause").hidden = !CAN_PAUSE.includes(state);
    byId("order").hidden = !HAS_PLACE.includes(state);
    document.querySelector("#stop-dialog [value=keep]").hidden = HAS_PLACE.includes(state); // nothing runs that could be judged
    clearTimeout(this.timer);
    if (HAS_PLACE.includes(state)) this.timer = setTimeout(() => this.place(state), SETTLED_MS);
  }

  async place(state) {
    try {
      const task = await call("GET", this.path);
      const { tasks } = await call("GET", "/api/queue?kind=training");
      const index = tasks.findIndex((each) => each.id === this.taskId);
      byId("order-priority").value = task.priority;
      byId("order-front").hidden = index === 0;
      byId("order-place").textContent =
        state === "paused" || index < 0 ? _("It waits until it is resumed.") : _("Number %(place)s of %(count)s runs that wait.", { place: index + 1, count: tasks.length });
    } catch (error) {
      toast(error.message, "error");
    }
  }

  async put(order) {
    try {
      const task = await call("PATCH", this.path, order);
      await this.place(task.state);
    } catch (error) {
      toast(error.message, "error");
    }
  }

  async pause() {
    byId("pause").disabled = true;
    try {
      const task = await call("POST", `${this.path}/pause`);
      this.showState(task.state);
    } catch (error) {
      toast(error.message, "error");
    }
    byId("pause").disabled = false;
  }

  /** Add a restart to the list; a replayed event is there already. */
  restarted(event) {
    const list = byId("restarts-list");
    if (list.querySelector(`[data-seq="${event.seq}"]`)) return;
    const time = el("time", { datetime: event.time, class: "restart-time" }, moment(event.time));
    const text = el("span", { class: "preline" }, explain("warning", event.code, event.message));
    list.append(el("li", { "data-seq": event.seq }, time, text));
    byId("restarts").hidden = false;
  }
}

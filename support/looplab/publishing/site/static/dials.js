/* Turns each dial's results, which dials.py lays out one below the other, into one result at a time
   and a row of radio buttons. */
(() => {
  "use strict";

  let dials = 0;

  for (const dial of document.querySelectorAll(".course-dial")) {
    const choices = [...dial.querySelectorAll(":scope > .course-choice")];
    const name = dial.dataset.name;
    const group = `course-dial-${++dials}`;
    const buttons = document.createElement("fieldset");
    const legend = document.createElement("legend");
    legend.textContent = name;
    buttons.append(legend);
    const status = document.createElement("p");
    status.className = "course-spoken";
    status.setAttribute("role", "status");

    const turn = (chosen) => {
      for (const choice of choices) choice.hidden = choice !== chosen;
    };
    for (const choice of choices) {
      const label = document.createElement("label");
      const button = document.createElement("input");
      Object.assign(button, { type: "radio", name: group, value: choice.dataset.choice });
      // a browser that restores forms would check another one than the one shown
      button.autocomplete = "off";
      button.checked = "start" in choice.dataset;
      button.addEventListener("change", () => {
        turn(choice);
        status.textContent = `The result for ${name} ${choice.dataset.choice} is shown.`;
      });
      label.append(button, ` ${choice.dataset.choice}`);
      buttons.append(label);
    }
    dial.prepend(buttons);
    dial.append(status);
    dial.classList.add("course-turned");
    turn(choices.find((choice) => "start" in choice.dataset));
  }
})();

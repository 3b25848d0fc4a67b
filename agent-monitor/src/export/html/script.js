"use strict";
(function () {
  var svg = document.getElementById("timeline");
  if (svg) {
    var whole = svg.viewBox.baseVal.width, height = svg.viewBox.baseVal.height;
    var from = 0, width = whole, label = document.getElementById("span");
    var start = Number(svg.dataset.start), end = Number(svg.dataset.end);
    var show = function () {
      width = Math.min(whole, Math.max(whole / 200, width));
      from = Math.min(whole - width, Math.max(0, from));
      svg.setAttribute("viewBox", from + " 0 " + width + " " + height);
      var at = function (x) { return new Date(start + (end - start) * x / whole).toISOString().replace("T", " "); };
      label.textContent = at(from) + " to " + at(from + width);
    };
    var zoom = function (by, around) {
      var centre = from + width * around;
      width = Math.min(whole, Math.max(whole / 200, width * by));
      from = centre - width * around;
      show();
    };
    var actions = {
      "in": function () { zoom(0.5, 0.5); }, out: function () { zoom(2, 0.5); },
      left: function () { from -= width / 4; show(); }, right: function () { from += width / 4; show(); },
      all: function () { from = 0; width = whole; show(); }
    };
    Object.keys(actions).forEach(function (name) {
      document.getElementById("zoom-" + name).addEventListener("click", actions[name]);
    });
    svg.addEventListener("keydown", function (event) {
      var key = { "+": "in", "=": "in", "-": "out", ArrowLeft: "left", ArrowRight: "right", "0": "all" }[event.key];
      if (key) { actions[key](); event.preventDefault(); }
    });
    svg.addEventListener("wheel", function (event) {
      if (!event.ctrlKey) { return; }
      var box = svg.getBoundingClientRect();
      zoom(event.deltaY < 0 ? 0.8 : 1.25, (event.clientX - box.left) / box.width);
      event.preventDefault();
    }, { passive: false });
    show();
  }
  var input = document.getElementById("filter"), count = document.getElementById("count");
  if (input) {
    var rows = Array.prototype.slice.call(document.querySelectorAll("#records tbody tr"));
    var refused = document.getElementById("refused"), table = document.getElementById("records");
    var apply = function () {
      var words = input.value.toLowerCase().split(/\s+/).filter(Boolean), shown = 0;
      rows.forEach(function (row) {
        var text = row.textContent.toLowerCase();
        var keep = words.every(function (word) { return text.indexOf(word) >= 0; }) &&
          (!refused.checked || row.classList.contains("bad-row"));
        row.hidden = !keep;
        shown += keep ? 1 : 0;
      });
      // What was looked for goes on paper.
      table.classList.toggle("chosen", words.length > 0);
      count.textContent = shown + " of " + rows.length + " shown";
    };
    input.addEventListener("input", apply);
    refused.addEventListener("change", apply);
    document.addEventListener("keydown", function (event) {
      if (event.key === "/" && document.activeElement !== input) { input.focus(); event.preventDefault(); }
    });
    apply();
  }
  var opener = document.getElementById("open-all");
  if (opener) {
    opener.addEventListener("click", function () {
      document.querySelectorAll("details").forEach(function (item) { item.open = true; });
    });
  }
  window.addEventListener("beforeprint", function () {
    document.querySelectorAll("details").forEach(function (item) { item.open = true; });
  });
})();

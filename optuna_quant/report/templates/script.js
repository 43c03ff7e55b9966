(function () {
  "use strict";
  document.documentElement.classList.add("js");
  var table = document.querySelector("table.ops");
  if (!table) return;
  var body = table.tBodies[0];
  var rows = Array.prototype.slice.call(body.rows);
  var words = document.getElementById("filter");
  var state = document.getElementById("state");
  var count = document.getElementById("count");
  function show() {
    var wanted = words.value.toLowerCase();
    var shown = 0;
    rows.forEach(function (row) {
      var fits = (!state.value || row.dataset.state === state.value) &&
        (!wanted || row.textContent.toLowerCase().indexOf(wanted) >= 0);
      row.hidden = !fits;
      shown += fits ? 1 : 0;
    });
    count.textContent = shown + " of " + rows.length + " shown";
  }
  words.addEventListener("input", show);
  state.addEventListener("change", show);
  function key(row, column) {
    var cell = row.cells[column];
    return cell.dataset.value === undefined ? cell.textContent.trim() : Number(cell.dataset.value);
  }
  Array.prototype.forEach.call(table.tHead.rows[0].cells, function (head, column) {
    var button = document.createElement("button");
    button.textContent = head.textContent;
    button.title = "sort";
    head.textContent = "";
    head.appendChild(button);
    button.addEventListener("click", function () {
      var first = head.classList.contains("n") ? "descending" : "ascending";
      var other = first === "ascending" ? "descending" : "ascending";
      var order = head.getAttribute("aria-sort") === first ? other : first;
      Array.prototype.forEach.call(table.tHead.rows[0].cells, function (each) {
        each.removeAttribute("aria-sort");
      });
      head.setAttribute("aria-sort", order);
      var sign = order === "ascending" ? 1 : -1;
      rows.sort(function (a, b) {
        var one = key(a, column), two = key(b, column);
        if (typeof one === "number" && isNaN(one)) return isNaN(two) ? 0 : 1;
        if (typeof two === "number" && isNaN(two)) return -1;
        return sign * (typeof one === "number" ? one - two : one.localeCompare(two));
      });
      rows.forEach(function (row) { body.appendChild(row); });
    });
  });
  show();
})();

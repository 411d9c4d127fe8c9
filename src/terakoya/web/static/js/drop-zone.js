// A place that files can be dropped on. Knows nothing of what becomes of them.

export function dropZone(place, take) {
  for (const type of ["dragover", "dragenter"]) {
    place.addEventListener(type, (event) => {
      event.preventDefault();
      place.classList.add("is-over");
    });
  }
  place.addEventListener("dragleave", () => place.classList.remove("is-over"));
  place.addEventListener("drop", (event) => {
    event.preventDefault();
    place.classList.remove("is-over");
    take([...event.dataTransfer.files]);
  });
}

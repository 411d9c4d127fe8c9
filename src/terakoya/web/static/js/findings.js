// What reading a file can bring up, in the words of the parsers and of the import, so that it can be told in the reader's language.
// A finding that is not here is shown as the server says it.

const mark = (text) => text;

export const FINDINGS = [
  mark("The file was in %(encoding)s; it was converted to UTF-8."),
  mark("%(n)s of %(all)s rows cannot be used and were left out."),
  mark("Rows of several formats were found: %(found)s."),
  mark("Fields that were not used: %(fields)s"),
  mark("%(n)s of %(all)s rows repeat an earlier row exactly; they were kept."),
  mark("%(n)s of %(all)s held-out rows have a prompt that training rows have too; their score will look better than it is."),
  mark("pages that are images without a text layer, left out: %(pages)s"),
  mark("pages that are damaged, left out: %(pages)s"),
  mark("%(n)s headers and footers that repeat were left out"),
  mark("menus were left out"),
  mark("the front matter was left out"),
  mark("converted from %(encoding)s"),
  mark("%(n)s NUL characters were removed"),
  mark("the PDF is password protected; save a copy without the password and add that"),
  mark("the PDF is damaged or cut off, or no PDF at all: %(reason)s"),
  mark("the PDF has no text layer; %(n)s of its %(all)s pages are images, as scans are. Run text recognition (OCR) on it and add the result"),
  mark("the PDF holds no text on its %(n)s pages"),
  mark("the document holds no text"),
  mark("%(name)s is empty"),
  mark("%(name)s is of a type that is not read; these are: %(known)s"),
];

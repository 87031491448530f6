"""The site itself: extensions of Sphinx that finish its pages, and the book as a PDF. No number comes from here."""

"""The Hugging Face Space's entry; `publisher ui` opens the same page."""

from publisher.ui import launch

if __name__ == "__main__":
    launch()

"""What the gallery shows is chosen, sorted, filtered, and in the link."""

from pathlib import Path

from tests.support.gallery_page import OpenPage, shown_numbers


def test_filters_and_sorting(open_page: OpenPage, data_root: Path) -> None:
    page = open_page(data_root)
    returns = "cards => cards.map(card => Number(card.querySelector('.card-return').textContent.replace(',', '')))"
    page.select_option("#sort", "return:-1")
    values = page.eval_on_selector_all(".card", returns)
    assert values == sorted(values, reverse=True)
    page.fill("#return-min", str(values[3]))
    page.wait_for_function("document.querySelectorAll('.card').length < 5")
    assert len(shown_numbers(page)) in (3, 4)  # what is shown is rounded
    assert page.text_content("#count").endswith("of 8 episodes")
    page.select_option("#ended", "truncated")
    assert all(number % 3 == 0 for number in shown_numbers(page))
    page.fill("#length-min", "100000")
    page.wait_for_selector("#empty", state="visible")
    page.click("#reset")
    page.wait_for_selector(".card")
    assert shown_numbers(page) == list(range(8))


def test_sorting_and_filters_are_in_the_link(open_page: OpenPage, data_root: Path) -> None:
    page = open_page(data_root)
    page.select_option("#sort", "return:-1")
    page.fill("#length-max", "60")
    page.select_option("#ended", "terminated")
    page.wait_for_function("document.querySelector('#count').textContent.includes(' of ')")
    address, shown = page.evaluate("location.hash"), shown_numbers(page)
    again = open_page(data_root, address.removeprefix("#/"))
    assert shown_numbers(again) == shown
    assert again.input_value("#sort") == "return:-1"
    assert again.input_value("#length-max") == "60"
    # Opened and closed, the link of an episode keeps them.
    again.click(".card >> nth=0")
    again.wait_for_selector(".plot")
    assert "sort=return" in again.evaluate("location.hash")
    again.keyboard.press("Escape")
    again.wait_for_function("address => location.hash === address", arg=address)


def test_words_in_the_link_that_mean_nothing_are_left_aside(open_page: OpenPage, data_root: Path) -> None:
    page = open_page(data_root, "Nothing/there/99?sort=evil:1&ended=%3Cscript%3E&across=77&length-max=x")
    assert len(shown_numbers(page)) == 8
    assert page.input_value("#sort") == "n:1"


def test_checkpoints_and_experiments_are_chosen_and_linked_to(open_page: OpenPage, data_root: Path) -> None:
    page = open_page(data_root)
    assert page.get_attribute("#chart", "data-label") == "100000"
    box = page.locator("#chart").bounding_box()
    page.mouse.move(box["x"] + 70, box["y"] + 90)
    page.wait_for_selector(".tip", state="visible")
    assert page.text_content(".tip strong") == "random"
    assert "quartiles" in page.text_content(".tip")
    page.mouse.click(box["x"] + 70, box["y"] + 90)
    page.wait_for_function("document.querySelector('#chart-reading').textContent.startsWith('random')")
    page.wait_for_selector('.card[data-n="0"]')
    address = page.evaluate("location.hash")
    again = open_page(data_root, address.removeprefix("#/"))
    assert again.get_attribute("#chart", "data-label") == "random"
    again.focus("#chart")
    again.keyboard.press("ArrowRight")
    assert again.get_attribute("#chart", "data-label") == "20000"
    again.select_option("#checkpoint", "2")
    assert again.get_attribute("#chart", "data-label") == "100000"
    again.select_option("#experiment", "Other")
    again.wait_for_function("document.querySelectorAll('.card').length === 2")
    assert again.text_content("#experiment-name") == "Other"

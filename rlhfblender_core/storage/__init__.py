"""Storage: the data root on any fsspec file system, and files in it that appear complete or not at all."""

from rlhfblender_core.storage.failures import (
    cause_of,
    full_disk_errors,
    is_not_found,
    is_refusal,
    storage_errors,
    translated,
    words_of,
)
from rlhfblender_core.storage.files import (
    make_folder,
    publish_bytes,
    publish_files,
    publish_many_bytes,
    remove_files,
    remove_tree,
)
from rlhfblender_core.storage.reading import (
    check_writable,
    fetch_file,
    list_folders,
    list_sizes,
    modified_at,
    modified_times,
    read_bytes,
    read_each,
    read_many,
)
from rlhfblender_core.storage.root import (
    DataRoot,
    has_password,
    install_hint,
    open_data_root,
    open_file_system,
    storage_options_for,
)

__all__ = [
    "DataRoot",
    "cause_of",
    "check_writable",
    "fetch_file",
    "full_disk_errors",
    "has_password",
    "install_hint",
    "is_not_found",
    "is_refusal",
    "list_folders",
    "list_sizes",
    "make_folder",
    "modified_at",
    "modified_times",
    "open_data_root",
    "open_file_system",
    "publish_bytes",
    "publish_files",
    "publish_many_bytes",
    "read_bytes",
    "read_each",
    "read_many",
    "remove_files",
    "remove_tree",
    "storage_errors",
    "storage_options_for",
    "translated",
    "words_of",
]

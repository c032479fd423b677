import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from immunax.runtime import mesh as meshes
from immunax.runtime.checksum import as_text, checksums


def checksum(array):
    return as_text(checksums({"one": array})["one"])


def mix(word):
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        word = ((word ^ (word >> shift)) * factor) % 2**32
    return word ^ (word >> 16)


def by_the_formula(words):
    mixed = [mix(word ^ mix(place)) for place, word in enumerate(words)]
    weighed = [(2 * place + 1) * each for place, each in enumerate(mixed)]
    return f"{sum(mixed) % 2**32:08x}{sum(weighed) % 2**32:08x}"


def test_it_is_what_the_formula_says():
    array = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32)
    assert checksum(array) == by_the_formula([int(word) for word in array.reshape(-1).view(np.uint32)])


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16, np.float16, np.int8, np.uint32, np.bool_])
def test_it_is_the_same_in_memory_and_on_a_device(dtype):
    array = (np.arange(24).reshape(2, 3, 4) % 7).astype(dtype)
    assert checksum(array) == checksum(jnp.asarray(array))


def test_it_is_the_same_however_an_array_is_split():
    devices = meshes.build(meshes.MeshSpec(fsdp=4, tensor=2))
    array = np.random.default_rng(1).normal(size=(8, 16, 6)).astype(np.float32)
    layouts = [
        PartitionSpec(),
        PartitionSpec("fsdp"),
        PartitionSpec("tensor", "fsdp"),
        PartitionSpec(("fsdp", "tensor")),
    ]
    assert {checksum(jax.device_put(array, NamedSharding(devices, each))) for each in layouts} == {checksum(array)}


def test_every_single_bit_shows_in_it():
    array = np.random.default_rng(2).normal(size=(3, 7)).astype(np.float32)
    raw, found = array.tobytes(), set()
    for place in range(8 * len(raw)):
        changed = bytearray(raw)
        changed[place // 8] ^= 1 << place % 8
        found.add(checksum(np.frombuffer(bytes(changed), np.float32).reshape(3, 7)))
    assert len(found - {checksum(array)}) == 8 * len(raw)


def test_two_words_that_change_places_show_in_it():
    array = np.arange(12, dtype=np.float32)
    swapped = array.copy()
    swapped[[2, 9]] = array[[9, 2]]
    assert checksum(swapped) != checksum(array)


def test_what_has_64_bits_or_nothing_has_one_too():
    numbers = [np.int64(7), np.int64(7 + 2**32), np.float64(0.1), np.zeros((0, 3), np.float32)]
    assert len({checksum(np.asarray(number)) for number in numbers}) == 4

"""Which tiling a plan chooses for each level, what a card has room for, and the cost model behind the choice."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flowkit.errors import ParameterError
from flowkit.flow.cuda.card import KNOWN_CARDS
from flowkit.flow.cuda.cost import LEAST_GAIN, CostModel, best_tiling, tilings_of, why_never_chosen
from flowkit.flow.cuda.plan import BatchPlan, Level, choose_tilings, describe_refused
from flowkit.flow.cuda.tiles import DEFAULT_TILE, HALF_VARIANTS, NUM_FUSED_ITERATIONS, SPILLING_VARIANTS, VARIANTS, TileShape, Tiling
from flowkit.flow.params import TVL1Params

H200 = KNOWN_CARDS[90]
LEVELS = [Level(width, height) for height, width in TVL1Params().level_sizes(256, 340)]
MODEL = CostModel()


class TestCards:
    def test_shared_memory_is_what_was_computed_by_hand(self) -> None:
        assert DEFAULT_TILE.dynamic_bytes == 4 * 8 * 17 * 16 + 4 * 9 * 16 * 16
        assert replace(DEFAULT_TILE, shared_constants=True).dynamic_bytes == 50_688
        assert TileShape(16, 12, 2, shared_constants=True).dynamic_bytes == 75_520

    def test_each_block_costs_what_the_system_reserves(self) -> None:
        tile = TileShape(16, 8, 4, shared_constants=True)
        assert H200.blocks_per_sm(tile) == 4
        assert replace(H200, shared_bytes_per_sm=4 * tile.shared_bytes).blocks_per_sm(tile) == 3

    @pytest.mark.parametrize(("arch", "expected"), [(75, 1), (80, 3), (86, 1), (89, 1), (90, 4), (100, 4), (120, 1)])
    def test_constants_in_shared_memory_leave_few_blocks_where_it_is_small(self, arch: int, expected: int) -> None:
        assert KNOWN_CARDS[arch].blocks_per_sm(TileShape(16, 8, 4, shared_constants=True)) == expected

    def test_a_tile_beyond_the_shared_memory_of_a_block_does_not_run(self) -> None:
        assert KNOWN_CARDS[75].blocks_per_sm(TileShape(16, 12, 1, shared_constants=True)) == 0

    def test_a_plan_refuses_a_tile_that_the_card_cannot_hold(self) -> None:
        tile = TileShape(16, 12, 1, shared_constants=True)
        assert choose_tilings(H200, LEVELS, 30, tile=tile) == (Tiling(tile, 5),) * 5
        with pytest.raises(ParameterError, match="takes 75,536 bytes of shared memory, of which T4 has 65,536 for a block; use another"):
            choose_tilings(KNOWN_CARDS[75], LEVELS, 30, tile=tile)

    def test_a_plan_refuses_more_iterations_than_a_tile_has_pixels_for(self) -> None:
        with pytest.raises(ParameterError, match=r"8 iterations do not fit .* tiles of 32x16 px"):
            choose_tilings(H200, LEVELS, 30, tile=TileShape(8, 4, 1), num_fused_iterations=8)


class TestRegisters:
    def test_the_registers_of_a_thread_are_what_nvrtc_leaves_it(self) -> None:
        assert [tile.registers for tile in VARIANTS] == [255, 128, 168, 128, 128, 80, 80, 72]
        assert [tile.registers for tile in SPILLING_VARIANTS] == [168, 128, 96, 80]
        assert all(tile.has_enough_registers for tile in VARIANTS)

    @pytest.mark.parametrize("arch", KNOWN_CARDS)
    def test_no_plan_may_choose_large_patches_whose_constants_leave_the_registers_for_more_warps(self, arch: int) -> None:
        shapes = [TileShape(x, y, n, 4, shared_constants=True) for x in (8, 16) for y in (4, 8, 12, 16) for n in range(1, 9)]
        more_warps = [tile for tile in shapes if tile.threads * tile.blocks_per_sm > DEFAULT_TILE.threads * DEFAULT_TILE.blocks_per_sm]
        vast = replace(KNOWN_CARDS[arch], shared_bytes_per_sm=1 << 30, shared_bytes_per_block=1 << 30)
        assert any(vast.holds(tile) for tile in more_warps)
        for card in (KNOWN_CARDS[arch], vast):
            assert not tilings_of(card, variants=(*more_warps, *SPILLING_VARIANTS))

    def test_an_unknown_kind_of_patch_is_not_believed_to_have_enough(self) -> None:
        assert not TileShape(16, 8, 2, 4, half_dual=True).has_enough_registers

    @pytest.mark.parametrize("arch", KNOWN_CARDS)
    def test_what_is_never_chosen_has_a_reason_and_what_may_be_has_none(self, arch: int) -> None:
        card = KNOWN_CARDS[arch]
        reasons = {row["tile"]: row["reason"] for row in describe_refused(card)}
        assert all("so that the compiler spills some to memory" in reasons.pop(str(tile)) for tile in SPILLING_VARIANTS)
        assert "those who ask for it" in reasons.pop(str(HALF_VARIANTS[0]))
        assert set(reasons) == {str(tile) for tile in VARIANTS if not card.holds(tile)}
        assert {tiling.tile for tiling in tilings_of(card)} == {tile for tile in VARIANTS if str(tile) not in reasons}

    def test_the_reasons_have_the_numbers(self) -> None:
        shared = VARIANTS[-1]
        assert why_never_chosen(KNOWN_CARDS[75], shared) == (
            "it takes 132,000 bytes of shared memory of a multiprocessor, which has 65,536"
        )
        assert why_never_chosen(replace(H200, threads_per_sm=512), VARIANTS[-2]) == (
            "it takes 768 threads of a multiprocessor, which has 512"
        )
        assert "more than the 168 registers of a thread" in why_never_chosen(H200, SPILLING_VARIANTS[0])
        assert why_never_chosen(H200, shared) == ""


class TestChoice:
    @pytest.mark.parametrize("arch", KNOWN_CARDS)
    def test_a_plan_chooses_only_what_the_card_has_room_for(self, arch: int) -> None:
        card = KNOWN_CARDS[arch]
        for tiling in tilings_of(card):
            assert card.holds(tiling.tile)
            assert tiling.is_possible
            assert tiling.num_fused_iterations <= NUM_FUSED_ITERATIONS
        assert {tiling.tile.shared_constants for tiling in tilings_of(card)} == ({True, False} if arch in (80, 90, 100) else {False})
        assert all(best_tiling(card, level.pitch, level.height) in tilings_of(card) for level in LEVELS)

    def test_the_measured_tiling_stays_unless_another_is_a_tenth_better(self) -> None:
        measured = Tiling()
        for card in KNOWN_CARDS.values():
            for level in LEVELS:
                seconds = {t: MODEL.seconds_per_pixel_iteration(t, card, level.pitch, level.height) for t in tilings_of(card)}
                best, chosen = min(seconds, key=seconds.__getitem__), best_tiling(card, level.pitch, level.height)
                assert chosen == (best if LEAST_GAIN * seconds[best] < seconds[measured] else measured)
        eager = replace(MODEL, cycles_per_instruction=1.0, barrier_cycles=0.0, launch_cycles=0.0)  # more warps gain nothing
        assert eager.issue_share(DEFAULT_TILE, 5, 2) == 1

    def test_an_h200_gets_smaller_patches_and_an_error_test_after_fewer_iterations(self) -> None:
        plan = choose_tilings(H200, LEVELS, 30)
        assert plan[0] == Tiling(TileShape(16, 16, 2, rows=2), 3)
        assert len(set(plan)) > 1  # it depends on the level
        assert all(tiling.tile.rows < 4 for tiling in plan)

    def test_few_inner_iterations_bound_the_iterations_of_a_launch(self) -> None:
        assert all(tiling.num_fused_iterations <= 2 for tiling in choose_tilings(H200, LEVELS, 2))
        assert best_tiling(KNOWN_CARDS[89], 1024, 768, 1).num_fused_iterations == 1

    @pytest.mark.parametrize("arch", KNOWN_CARDS)
    def test_small_frames_test_the_error_after_each_iteration_on_all_levels(self, arch: int) -> None:
        def depths(height: int, width: int, **given: int) -> set[int]:
            levels = [Level(width, height) for height, width in TVL1Params().level_sizes(height, width)]
            return {tiling.num_fused_iterations for tiling in choose_tilings(KNOWN_CARDS[arch], levels, 30, **given)}

        for size in ((16, 16), (33, 47), (65, 65), (128, 255), (145, 193)):
            assert depths(*size) == {1}
        assert max(depths(128, 256)) > 1
        assert depths(33, 47, num_fused_iterations=3) == {3}

    def test_a_given_number_of_iterations_holds_for_all_levels(self) -> None:
        assert choose_tilings(H200, LEVELS, 30, num_fused_iterations=4) == (Tiling(DEFAULT_TILE, 4),) * 5

    def test_memory_for_errors_suffices_for_the_level_with_most_tiles(self) -> None:
        tilings = (Tiling(), Tiling(TileShape(8, 4, 1), 5), *[Tiling()] * 3)
        plan = BatchPlan(tuple(LEVELS), tilings, TVL1Params(), None, 3, 4)
        tiles_x, tiles_y = tilings[1].grid(LEVELS[1].pitch, LEVELS[1].height)
        assert plan.arrays()["partial_errors"] == 3 * tiles_x * tiles_y * 4


class TestModel:
    def test_it_gives_what_a_profiler_saw(self) -> None:
        assert MODEL.issue_share(DEFAULT_TILE, 5, 2) == pytest.approx(0.385, abs=0.01)

    def test_redundant_pixels_cost_time_in_proportion(self) -> None:
        exact, wide = Tiling(DEFAULT_TILE, 5), 64 + 52  # two tiles across cover 116 px
        one = MODEL.seconds_per_pixel_iteration(exact, H200, 64, 32)
        two = MODEL.seconds_per_pixel_iteration(exact, H200, wide, 32)
        assert two / one == pytest.approx(2 * 64 / wide)

    def test_slow_memory_bounds_the_speed_by_bytes_per_iteration(self) -> None:
        slow = replace(H200, bytes_per_second=1e9)
        three, four = (MODEL.seconds_per_pixel_iteration(Tiling(DEFAULT_TILE, depth), slow, 340, 256, 12) for depth in (3, 4))
        assert three / four == pytest.approx(4 / 3 * (19 + 1) / (19 + 1.5))

    def test_a_block_alone_waits_longer_at_its_barriers(self) -> None:
        assert MODEL.issue_share(TileShape(16, 16, 1, rows=2), 5, 1) < MODEL.issue_share(TileShape(16, 8, 2, rows=2), 5, 2)

    def test_variants_are_distinct_and_their_registers_suffice_for_their_patches(self) -> None:
        assert len({(tile.threads_x, tile.threads_y, tile.dynamic_bytes) for tile in VARIANTS}) == len(VARIANTS)
        for tile in VARIANTS:
            held = 4 * tile.rows * (6 if tile.shared_constants else 10)
            assert not tile.half_dual  # it is for those who ask for it
            assert held < 65536 / (tile.threads * tile.blocks_per_sm)

"""The telephone network: 300 to 3400 Hz, 8000 samples a second, 8 bits each. Shape letter: T samples."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cache.media import SAMPLE_RATE_HZ

PASSED_HZ = (300.0, 3400.0)
# Outside the band, what is this far from its edges is 60 dB down (a Kaiser window).
SLOPE_HZ = 100.0
STOPPED_DB = 60.0
# G.711 numbers the mu-law's steps up to this, which is full scale.
FULL_SCALE = 8159.0
BIAS = 33.0


def telephone(waveform_T: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """A waveform at 16 kHz as it leaves the network, at the same rate, length and place in time.

    Band limits as ITU-T G.712 has them (here with steeper slopes, without delay), sampling at 8 kHz and mu-law of
    ITU-T G.711 at absolute levels: a quiet voice keeps few steps, as on a line.
    """
    coded_T = mu_law(_in_band(waveform_T.astype(np.float64))[::2])
    back_T = np.zeros(len(waveform_T))
    back_T[::2] = 2 * coded_T
    return _in_band(back_T)


def mu_law(samples_T: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Samples as G.711's mu-law gives them back: eight segments of 16 steps each, twice as coarse from one to the next.

    Full scale is 1; what lies above its last step is cut off there.
    """
    biased_T = np.minimum(np.abs(samples_T) * FULL_SCALE, FULL_SCALE - 1) + BIAS
    step_T = 2.0 ** (np.floor(np.log2(biased_T)) - 4)
    value_T = np.floor(biased_T / step_T) * step_T + step_T / 2 - BIAS
    quantised_T: npt.NDArray[np.float64] = np.sign(samples_T) * value_T / FULL_SCALE
    return quantised_T


def _in_band(samples_T: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    # Here and not above: scipy.signal takes more than half a second, and most ranks never need it.
    from scipy.signal import fftconvolve, firwin, kaiserord

    taps, beta = kaiserord(STOPPED_DB, SLOPE_HZ / (SAMPLE_RATE_HZ / 2))
    edges_hz = [PASSED_HZ[0] - SLOPE_HZ / 2, PASSED_HZ[1] + SLOPE_HZ / 2]
    # An odd number of taps and "same": no delay.
    kernel = firwin(taps | 1, edges_hz, window=("kaiser", beta), pass_zero=False, fs=SAMPLE_RATE_HZ)
    filtered_T: npt.NDArray[np.float64] = fftconvolve(samples_T, kernel, mode="same")
    return filtered_T

"""Room responses: how a room of a given reverberation time answers a click. Shape letter: T samples."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cache.media import SAMPLE_RATE_HZ

Response = npt.NDArray[np.float64]
# A single draw of noise decays a little faster or slower than its envelope; one that is further off is drawn again.
TOLERANCE = 0.04


def room_response(milliseconds: int, rng: np.random.Generator) -> Response:
    """A synthetic response (T,) with that RT60, the time in which the sound in it decays by 60 dB.

    The direct sound is 1 at sample 0. Behind it stands Gaussian noise under an exponential decay (Polack's model:
    J.-D. Polack, La transmission de l'énergie sonore dans les salles, thesis, Université du Maine, 1988), with the
    same energy: that is the ratio at the critical distance of any room. The response ends where it is 60 dB down.
    """
    seconds = milliseconds / 1000
    while True:
        response_T = _drawn(seconds, rng)
        if abs(reverberation_seconds(response_T) / seconds - 1) < TOLERANCE:
            return response_T


def reverberation_seconds(response_T: Response) -> float:
    """RT60 of a response, as ISO 3382-1 measures T30.

    Energy is integrated backwards (M. R. Schroeder, New method of measuring reverberation time, JASA 37, 1965), and a
    line through its decay from -5 to -35 dB is continued to -60 dB.
    """
    energy_T = np.cumsum(response_T[::-1] ** 2)[::-1]
    decay_db = 10 * np.log10(energy_T / energy_T[0])
    fitted = np.flatnonzero((decay_db <= -5) & (decay_db >= -35))
    db_per_sample = np.polynomial.Polynomial.fit(fitted, decay_db[fitted], 1).convert().coef[1]
    return float(-60 / db_per_sample / SAMPLE_RATE_HZ)


def _drawn(seconds: float, rng: np.random.Generator) -> Response:
    count = round(seconds * SAMPLE_RATE_HZ)
    decay = 3 * np.log(10) / seconds
    response_T: Response = rng.standard_normal(count) * np.exp(-decay * np.arange(count) / SAMPLE_RATE_HZ)
    response_T[0] = 0
    response_T /= np.sqrt((response_T**2).sum())
    response_T[0] = 1
    return response_T

"""The intrinsics of `simd` for loops: numba is imported when one of these loops is compiled, not with this file."""

from __future__ import annotations

from typing import Any

from bnnverify.compilation import intrinsic

address: Any = intrinsic("bnnverify.simd", "address")
load: Any = intrinsic("bnnverify.simd", "load")
store: Any = intrinsic("bnnverify.simd", "store")
vload: Any = intrinsic("bnnverify.simd", "vload")
vstore: Any = intrinsic("bnnverify.simd", "vstore")
bload: Any = intrinsic("bnnverify.simd", "bload")
bstore: Any = intrinsic("bnnverify.simd", "bstore")
hload: Any = intrinsic("bnnverify.simd", "hload")
hstore: Any = intrinsic("bnnverify.simd", "hstore")
vand: Any = intrinsic("bnnverify.simd", "vand")
vor: Any = intrinsic("bnnverify.simd", "vor")
vxor: Any = intrinsic("bnnverify.simd", "vxor")
vadd: Any = intrinsic("bnnverify.simd", "vadd")
badd: Any = intrinsic("bnnverify.simd", "badd")
hadd: Any = intrinsic("bnnverify.simd", "hadd")
hmin: Any = intrinsic("bnnverify.simd", "hmin")
hmax: Any = intrinsic("bnnverify.simd", "hmax")
prefetch: Any = intrinsic("bnnverify.simd", "prefetch")
vsplat: Any = intrinsic("bnnverify.simd", "vsplat")
vpopcount: Any = intrinsic("bnnverify.simd", "vpopcount")
vany: Any = intrinsic("bnnverify.simd", "vany")
bgreater_equal: Any = intrinsic("bnnverify.simd", "bgreater_equal")
bless: Any = intrinsic("bnnverify.simd", "bless")
trailing_zeros: Any = intrinsic("bnnverify.simd", "trailing_zeros")
popcount: Any = intrinsic("bnnverify.simd", "popcount")

"""One picture in every lossless encoding: DICOM files made here, with pixels that are known beforehand.

The JPEG lossless encoder is written out below; the JPEG-LS codestreams were made once with CharLS (pyjpegls 1.5.1), the
HTJ2K codestreams with OpenJPH, which is not the decoder's library.
"""

import base64
import io
import warnings

import numpy as np
import pydicom
from pydicom.encaps import encapsulate
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from tests.io.dicom import write_dicom

SHAPE = (67, 45)  # Odd sides: padding of rows or of the file's end must not shift anything.
BITS = (8, 12, 16)
SYNTAXES = {
    "implicit": ImplicitVRLittleEndian, "explicit": ExplicitVRLittleEndian, "big_endian": ExplicitVRBigEndian,
    "rle": RLELossless, "jpeg_lossless": JPEGLosslessSV1, "jpeg_ls": JPEGLSLossless, "jpeg_2000": JPEG2000Lossless,
    "htj2k": HTJ2KLossless}
JPEG_LS = {
    8: (
        "/9j/9wALCABDAC0BAREA/9oACAEBAAAAAJV6+9fbQAJf/3vttAnX+2320CfraQIalSTKKTIYgkVPNbWm4poqe1FSiOJFcgnaNscCEOFVl"
        "6R6mUl9VeseUiPb1UjWBBxzmAOkmi4prViZpKK9IWtKAtT305KfMcAnEIwwjglFjRlEZhskrvLE6sw28ivVN0YNWYjNIDLlFG1jDJRjou"
        "zdRtSSkRVbo7lIses0xmh0seqSiNC7xdCoTc+tTAuAETw/A8JMC0ENYbAXJcTQY1i4KmkPwmfSA0klQEwYShpDJe6DYwlVRSvVBIjteQM"
        "H7eTTIHKAEiK+Eoox1DbI2L1KLgC07bjUHqQpAX0LuMwAFVHcF1LubAbV7H6j3mhyVqm0OpTgAe9QUMMoANfKCXyPOGQCrvkb0alwhV+u"
        "IKhJQgB+ACdoHkTuH4z+g4lFD8UnR5KARMrtTIESAQjIsxIyESASkVTloiE8IjKpyjyYkUXkcXSwRore2XPiiRW8msPxRIu1VdVe0hlt1"
        "V1U1yGS1slFU44CUlqqhFmkf+5Wl5rd27qE0vP67dtGSXH9Zu2gKJ0Qys118k3TMVVs1vNUyurs/ya7FVN4VqqXVRbptVXSfrdJxUdL5b"
        "yaclfJlouPtH23u3F201t7FRZtNahTPTYL0PG5gnpseIfNxk3LixD5uIlpJ6W9AyqJ271b0CIgnbNGC9AnQjlkEH6nL7iqG0l3LrjsAta"
        "901xWNrfdNE6PQ2h/LhCR/N9D2XGNH8vce1xTRuLwq/kX1b7sBV/ZPq9UI63qn6bQZ1tUgtkqh2K+qO1cOxXyj7wdiPq/UISzaohFgI2R"
        "T3VEIkZERTvVEJ4yJFY0DsRoorLfVhiRRWTOGsMSKKyZQ/DNl3VXRTVIZLTZKIp1gSitVVRFOkRBWqhySW676Np4q+676ZJ5U9l30yTyp"
        "VV3+Cm+whs7P9N8jNnV/pukZs6vyk6RW9wt9HSue4m9HSue4m3unAC9xC3JD2SrKjpNPZKsqPJp7JUUR5MbbpCfmxah4vERNNi1D5eIn0"
        "uLyH8vEcvsqW9AioJ2yCD9AioJ23EH6BEUbtuoOAs5fYfjbv9WsPxt3/WsK5U7/HCfo/F/j+qKaPxf4/qiGjcTse1RCVtJgq2qv0/jOtq"
        "r9Pwzrarv/0wAG9qEFrwdivqOuh2K+o6oIFYj1B6ohKezRCJGNdXtohEsJIrHsRCJUaRWc9mJFFYmUNYYkUVkyh+GbKKyZ9HhmnG2VFU/"
        "iKKt2VFU/mUVbo9qrjmQVboosnd/UyS5V939TJPKtVf1Ml5UqwKLUCm6xmyq/qbpGbKrspOkY9qu0E6RW9xP++rvcT/vuEtxY7rvSzEL0"
        "mnslWVHSaeyVFEdJjiJUVI6THLxETzYsU8XiInmxch/LxHdS4uj5eZ1anEHqBlQTnuIPUCKo3LdIOAoEVRMtfVvc0tIdjTO6WkO4aZ3zl"
        "IlxlJ33K1I+k/D/qIaPpP1/yiErcnc/1ZyRQETBVtVfp+GdbVd/zmAA36i8g/awF/oQWuh2I+o6oQKxHmD1UFsR5obKiE720QiWEu7GqR"
        "CJUb3ZwshEoIUdnfTEiisTKGsM2UViZ9PDNOdkzxsM0W2yoqn0yirdTpVccyirdFPK47KKt0Uj5u/qZJ9Vqy2ptvqtWPXU2gwSrVlBTBT"
        "dY3ZVdqTrGXajtBOkZWTu0NUit7iaWqcj3FmNd6e4tWDXfvkQvSae2dKI6THdnSpHSY4mVKoWTeXiIvmouQ/F5ndTUXR83M60tF0NDczq"
        "tuILUDMg3P6QKAoEVBMt/S/oEVBNP6trGlpDuEm75ykO7uu+5UK7oC3felSPyf3/ZyV+T+aes5IoCJ/PWs5I9EwVfVb/uoHf0XkP3UC/y"
        "J991B1pCC1XDmI9g9aC2E1o0Wg+E1o0mITs1SIQVRvdnCyESgh7s7YSJQTnZ30xE4rFnUWGJqViZ4+GJucQmevDE3GAP/Z"
    ),
    12: (
        "/9j/9wALDABDAC0BAREA/9oACAEBAAAAAJLS0tJR0VDQUtJR0XSg/333589efHftV3p0qNCh/2+9998wc7776pysnI37sgfu2jdu0KnjR"
        "Yk+TJPLttstlCDrKzjjCS66ixB1lZ+26qkmuoow24hWktaVuWt5JSakFJRhiUtJJVSmhCcUbn6JZ9zWLVlqP6KZ9rFqfCLJohbFIRnwiy"
        "aIWmKZ6VFTy1Y2KVq0ETy1Y2KV60EShasbFK9aFBG0h2zLEtzUXSHfdsS/NRtId82pL81H0hnjo9E6zLP1EJHJVETnaiNHJeInO1ESlJ/"
        "AKHZsocOx2pA5fdWlloSiEFkoR1kkoSiEEkoRnZB1FpWK5pE9SToNSsVzSJyknQWlYrnkXULMg1exGtiSP918z418SQn3XjPjWxJCfdtK"
        "+NfEoyFuY+eyalrvWxj57JlFGcojHz2TKKM5xGP6d65mJGC0QL3riaRAsGCmcsm2YeDDkUsnYhTXiC8UEO+IU14gqigh/wQprxBVFBF/S"
        "EqmfhM7aORmRmYPV6OzMjEYFq9HZmRmQFq1MxAhN32469+EMnKicX9+EMldEoq9+EET5CGUqxVQhhTFMpXirjGFMUyleKuIYUxRFK6xgW"
        "jDkZND9HBYMOZGJD9HBYMOpGaH6KCwYdkQzioIvGop8wQoqHXzUU+YIVvOtBUUPEIUVmzLGEf8xR87PGEe8xR87PGEf8xR0dnjCfEjkqi"
        "JztRGjkvETnaiNHJVERTkoiUpP8Ch2bKHDsdqwcOjsUOShKIQSShGWSSj0QgklCM8QdRaViuaROUk6iUrFc0ichZ0GpWKxpF1CzINXkjX"
        "xJCUu2lfGtiSEpdtK+NfNkJ9m0r418SuQtzHz2TEiu9LGPnsmJFG9bGPlGTFFG9bGP8d65mIiBaIFI55skQLRArOeRJECwYKRyyeEKa8Q"
        "dRQQ7oQprxBVFBF/SEqmRGqKYv6QlU2mJnbz+ZkYjB6vR2ZkZmD1ajszIzMC1emBAhNy7cf9+EMndEoq9+EESuiUVe/CGS4EMpX36CGFM"
        "UyleKqEMKYoilfL0MYUxTKV+GBYMOZkSH6OCwYcxE0P0UFgw5iJofo4LBh0BDFOgJbCooeYQopBrwVFDxCFFYa0FJh7CFFImZ4wj3mKPn"
        "Z4wj/TFHR2eMI/0xR87PGGuaOS8ROdqI0clUROclEaOSqIinaiJSk9wKHZkUOHY7Vg4fmyhy0eiEEkoRlkkoSiEEkqRlyDqJSsVzSJykn"
        "QalYrlkXkLOg1KxWPIuoWdBq5u1sSQn3bivjXxJCddtK+NfEkJS7aV9a+JRI9zHz2TFFG9bGPlGTFFG9bGPnsmUUI5xGPwR65mJEC0QKz"
        "nt0iBaIFZzyaRAsCBSOWTIhTXiDqKCHfEKa0QVRQRf0hKpsRutMT9ISqb8CzvR2ZkZmD1ajszIzMHq9HZmZmYPV6UECG3Km469+EE3Ltx"
        "178IZOVEo69+EMlmIIpV36GMKYoileL0MYUxTKV4vxDCmKZSvgwLRByMmh+igtEHIyaH6OCwYcxk0P0cFgw/BDFOQJeCkw8hCikG6Ckw9"
        "hCisE6Ckw9hCik+Z4wj/mKOjs8YR/zFHzs8YZ/xij52eMJM0clUROclEaOSqInO1EaOaqJlFaiJSt6AUOzZQ4ditWDh0dlDkoSiEEkqRl"
        "kkoSiEEkoRlCDqLSsVyyJyknQalYrmkTlLEQalYrHkXULMg1cCNfEkJ124r418SQn3XjPrXxJCfduK+NfE/IS5j5RkxLXetjHz2TEtI9b"
        "GPnsmUUZzsY2zvXM1IgWiBWc9skQLRgrOeTbMFgwUil0uIU1ogqiggr4hTXiCqKCJ+kJVNsbrTF/SEsm+CZ2UdmZGZg9Xo7MzMzB6vR2Z"
        "kZEBYvSIgQ25duO6vwhNypqOvfhDJ3RKKvehDJYiDKV9+hjCmKZSvF6EMKYplK8VcQwohTKV7CAsGHNyaH6OCwYcxE0P0cFgwpkZoeo4L"
        "BhdCGKdBF41VPjEKKQNeNRT5ghRedeCox8wQovdc8YR/zFHzs8YZ/zFHzs8YR/xnHzs8YSRo5Koic7URo5qoic7URo5KoiU7URKUnsCh2"
        "bKHDsdqwcORsocOhKIIHJQjLJehKIQSShGWQdBqViueRdQsRBq1ise66hZkGpWMx5F1CzINXFGviSE+7cV9a+JISl20r418SUlLtpXxr5"
        "tpC3MfPZMUUJ62MfPZMSK71sY2eyYoo3rYx+O9czERAtGC965mSIFogUjl02zBYMORSyaIU14gqighXxCmvEFUUEX9ISybEbrTF/SEqm1"
        "CZ3o7MzMzB6vR2ZkZmDxejszIyIC1ekCBCbl2o7q/CE3Ltx170IZO6JRV78IZKUP/Z"
    ),
    16: (
        "/9j/9wALEABDAC0BAREA//gADQH//wASAEMBFABA/9oACAEBAAAAAJKdKlKVKVKNJ9J9JtJtJlJVJVHdJFI9ItItIdIdIVIFIFH1H1HtF"
        "1HdHNHNHFG1G1GlGlGdGNGNF9EVF1FlFlFVFVKpLRKpKRJxJJJ5JpJRIZIpIxIRIhJpJBIpIBHpIRIBHpGpHJHJGpG5H5HhHBGZGBGhGh"
        "GBFBFhFZFJFRGRF5FRE5JxFZFZEZEBD5EZDxDxEJEREZCpEJCxDxCxCRCZCxCJCJCZCxCxBBChBBCRBJApAxBBApAhAxBJBD/CB39kCv7"
        "fy/klF/z8H8v+fg/p/L936PzfW+9+T6nxvrfk+N9r7H0vofM958T5HvPWe8+V6r4TvncO2dg6R1TrnROQdM7RyyVTrnYOcc06x2zpHVOa"
        "dc6pzDpHUOuc85p1jtnROsc0651TlnTOodc55zDrnbOidY5h2DqnLOmdM7BzzmHXJWOuc86h1jtHQOidI7BzzmHUOgdY6B1DrHaOedI6R"
        "2DnnLOqdA6x0DpnXO0c86R0TsnPOWdU551zoHTOudkks6x1DnnYOmdA7R1TpHOOsdM7J1zqHPOwdI6J2jqnSOadc6Z2TrnTOgdg6R0Tsn"
        "WOkc0650jtHXOmdA650ySzlHJOudc6h0TknKOuc0650jrnKOSdc6x1TonJOUdY5x1zpHXOSco651jqnQOUco6xzjrHTOuck5R1jrnVJJO"
        "sd46hyDnHMPAdY5Z2zonVOoc07x0zknOOYeA6pzDtnROqdM5x3jpnJOac08B1TmHaOkdU6ZzjunUOSc0kU650TlnTOids55zjtHQOqdk5"
        "51DoHMOmdE7ZzjnnaOgdU7B0DqHQOYdI6R2znHPOydE6p2DoHTOicw6R0iUTrnNO0dk5h0zrHWOkdQ6ZzDtnPOcdo7JzDpHXOsdI6h0jm"
        "nbOec47J2jmHSOudU6Z1DpHNO0dA5x2TtHLJJOsdA5p0zpnTOodM6xyzpHaOUdc6BzTpnSOodQ6Z1jlHTO0co65zznHTOkdQ6Z1DrHKOm"
        "dk5Z1znnOOkdMkk65zTsHSOgdk5Z0DmHcOac46h1zmnYOidE7JyzoHLO6c05x1DrHOOwdE6J2DmHQOWd05hzzqHWOcdc6R0STDknSOgdA"
        "6pzjrHWOqdU6p1jrHIOkc86J1TnHWOqdY6p1TrHVOSdI550TqHPOsdU6x1DrHWOqck6J0DonUJCOuds651TonPOqdQ6RyzoHROcdE7R2D"
        "qnROedQ6p0jlnQOgc86J2jsHUOkc86h1TonMOgdA550DtnYOodIkA652DonOOgdQ6B0TqHYOycw7JzjsnROcdA6Z0TonUOwdg5p2TnHZO"
        "gc86B0zonQOqdg7BzTsHPOydA55zyRTrHJOkdo5h1zrnVOqdQ5p0jqnQOSdI7RyzsHXOqdU6ZzjpHVOgcg6Z2jlnYOsdY6p0znHROsdA5"
        "B0zsnMJIOudc55zTrHbOidY5p1zqnLOmdQ65zzmHXO2dE6xzDsHVOWdM6Z2DnnMOudo6R1jmHYOocw6Z0zsHOOadckk6x0DqHWO0c86R0"
        "jsHPOWdU6B1joHTOudo550jonZOecs6pzzrnQOmdc7J0DpHROyc45h1TnnXOedQ652SPjrnUOedg6R0TtHVOkc0650zsnXOmdA7B0jonZ"
        "OsdI5p1zpHaOudM6B1zpnROydY6JzjrnSO0dY6h0DrnTI9OUck651jqnROSco6xzjrnSOuck5R1zrHVOgco5R1jnHWOmdc5JyjrHXOqdA"
        "5RyTrnOOsdM6xyjlHWOudQj06x3jpnJOccw8B1TmHbOidU6ZzjvHTOSc05p4DqnMO0dI6p0znHdOock5pzTvnWOYdo6R1DqHOO6dQ5Bzi"
        "ODrnQOYdM6J2znHPO0dA6p2DoHUOgcw6R0jtnOOedk6J1TsHQOmdE5h0jpHaOec87J0TqHZOgdM6JyzpnSJEOsc47R2TmHSOudY6R1DpH"
        "NO2c85x2TtHMOkdc6p0zqHSOado6BzjsnaOWdM651TpnTOmc07R0DmnaO0csjw650DmnTOkdQ6h0zrHKOmdo5R1znnOOmdI6h0zqHWOUd"
        "M7JyzrnPOcdI6Z1DpnUOqcs6Z2TlnWOgc46R0yOzrnNOwdE6J2TlnQOWd05pzjqHWOcdg6J0TsHMOgcs7pzDnnUOsc4650jonYOYc85h3"
        "TmHPOmdc5x1zpHQJAOSdI550TqnOOsdU6x1TqnWOqck6RzzonUOedY6p1jqHWOsdU5J0ToHROoc86p1jrHUOsdU6xyTonQOgdUjU652js"
        "HVOic86h1TpHLOgdA550TtHYOodI551DqnROYdA6BzzoHbOwdQ6RzjqnVOicw550TnnQO2dc6p0iMzrHZOic46B0zonROodg7BzTsnOOy"
        "dA550DpnROgdU7B2DmnYOedk6BzznnUOidA6p1zsnNOwc87B0TnnPI4Ouck6R2jlnYOudU6p0znHSOqdA5B0ztHLOwdY6x1TpnOOidY6B"
        "yDpnZOYdg6x1jqHUOcdE6xzzknTOycwjo651znnMOuds6J1jmHYOqcs6Z0zsHPOYdc7R0jrHMOwdQ5h0zpnYOcc0652jpHVOadg6hzDpH"
        "UOwc45p1iPTrHQOmdc7RzzpHROyc85Z1TnnXOgdM652ToHSOidk5xzDqnPOuc86h1zsnQOidI7JzjmHUOgdc551DrHaIxOudM6B2DpHRO"
        "ydY6RzTrnSO0dc6Z0DrnTOidk6x0TnHXOkdo6x1DoHXOmdA7R1jonOOsdM7R1jqHPOwdMjA5JyjrnWOqdA5RyjrHOOsdM65yTlHWOudU6"
        "ByjknXOcdY6Z1jlHKOsdc6h0TlHJOuc0650zrHKOSdc651CMDrneOmck5pzTwHVOYdo6R1TpnOO6dQ5JzTmnfOscw7R0jqHUOcd06hyDn"
        "HNO+dY5Z2zpHUOoc07x1DkHOIqOudA5h0jpHbOcc87J0TqnYOgdM6JzDpHSO0c8552TonUOydA6Z0TlnTOkdo55zjtHROodk551DonLOm"
        "dEjg6xzjsnaOYdI651TpnUOkc07R0DnHZO0cs6Z1zqnTOmdM5p2joHNO0do5Z0zrHWOmdM6ZzDtnQOado7JzCLzrnPOcdM6R1DpnUOsco"
        "6Z2TlnXOec46R0zqHTOodU5Z0zsnLOsdA5x0jpnTOodQ6pyzpHaOWdY6BzTpnTIuOsc47B0TonYOYdA5Z3TmHPOodY5x1zpHROwcw55zD"
        "unMOedM65zjrnSOgdk5hzzmHcOac86Z1zmnYOkdAjM5R0jnnROoc86x1TrHUOsdY6pyTonQOidQ551TrHWOodY6p1jknROgdA6pzzqnWO"
        "qdU6x1TrHIOkdA6B1SJzrnaOwdQ6RzzqHVOicw6B0DnnQO2dg6h0jnHVOqdE5hzzonPOgds651TpHOOqdQ6RzDnnROcdE7Z1zqnRInOsd"
        "k6BzzoHTOidA6p2DsHNOwc87J0DnnPOodE6B1TrnZOadg552DonPOedQ6B0TqnXOycw7JzzsHROcdAis65yDpnaOWdg6x1jqnTOcdE6x0"
        "DkHTOycw7B1jrHUOoc46J1jnnJOmdk5h1zrnWOodQ5p0jrHPOSdI7RzCLTrHYOecw652jpHWOYdg6hzDpnTOwc45p1ztHSOqc07B1DmHS"
        "Oodg5xzTrHbOkdU5p1zqnMOkdQ65zzmnWIwOudA6Z1zsnQOkdE7JzjmHVOedc551DrnZOgdE6R2TnHMOodA65zzqHWO0dA6J0jsHPOYdQ"
        "6B1joHUOsdoiM650zoHXOmdE7J1jonOOudI7R1jqHQOudM6B2jrHROcdY6Z2jrHUOedg6Z0DtHVOkc46x0zsnXOoc87B0iJDknKOsdc6p"
        "0DlHJOuc46x0zrHKOUdY651DonKOSdc5p1zpnWOUck651zqHROSco65zTrnSOuco5J1zrHVIjOud06hyTmnNO+dY5h2jpHUOoc47p1DkH"
        "OOad86xyztnSOodQ5p3jqHIOccw8B1jlnbOidU6hzTvHTOSc4h06x0TmHSOkdo55zzsnROodk6B0zonLOmdI7RzznHaOidQ7JzzqHROWd"
        "M6J2znnOO0dA6p2TnnUOgcw6Z0SKzrnOOydo5Z0zrnVOmdM6ZzTtHQOado7RyzpnWOsdM6Z0zmHbOgc07R2TmHTOsdY6R1DpnMO2c85x2"
        "jsnMIhOuc85x0jpnUOmdQ6pyzpnZOWdY6BzjpHTOmdQ6h1TlnSO0cs6x0DmnTOmdM6h0zrHLOkdo5R1zoHNOmdIiI6xzjrnSOidg5hzzm"
        "HdOYc86Z1znHXOkdA7JzDnnMO4c0550zrnNOwdI6B2TlnQOYdw5pzjqHXOadg6J0SJjlHROgdE6hzzqnWOsdQ6x1TrHJOidA6B1TnnVOs"
        "dU6p1jqnWOQdI6B0DqnOOsdY6p1TqnWOscg6RzzonVIaOsds7B1DpHOOqdU6JzDnnROedA7Z1zqnSOcdU6h0jmHPOic46J2zrnVOic86p"
        "1DpHLOgdE5x0TtHYOqdEho652ToHPOedQ6J0DqnXOyc07BzzsHROec86h0DonVOudk5h2TnnYOic46B1DoHROodg7JzDsnOOydE5x0CHT"
        "rnIOmdk5h2DrHWOodQ5x0TrHPOSdM7JzDrnXOsdQ6hzTpHWOeck6R2jmHXOudU6p1DmnSOqdA5J0jtHLIhOsdg5xzTrnaOkdU5p2DqHMO"
        "kdQ7BzjmnWO2dI6pzTrnVOYdI6h1znnNOsds6J1jmnXOqcs6Z1DrnPOYdciM65zzqHXOydA6J0jsnOOYdQ6B1znnUOsdo6B0TpHYOecw6"
        "h0DrHQOodY7RzzpHSOwc85Z1ToHWOgdM652iFjrHUOgdc6Z0DtHWOic46x0ztHWOoc87B0zoHaOqdI5x1jpnZOudQ552DpHRO0dU6RzTr"
        "nTOydc6Z0DsHSIXOUco6x1zqHROUck65zTrnTOsco5J1zrnUOick5R1zmnXOkdc5RyTrnWOqdE5JyjrHOOudI65yTlHXOsdUhU653TqHI"
        "Occ0751jlnbOkdQ6hzTvHUOQc45h4DrHLO2dE6p1DmneOmck5xzDwHVOYds6J1TpnOO8dM5JzSETrHROWdM6R2jnnOO0dE6h2TnnUOics"
        "6Z0TtnPOcdo6B1TsnPOodA5h0zonbOcc87R0DqnYOgdQ6BzDpHSIeOuc07R2jlnTOsdY6Z0zpnMO2dA5p2jsnMOmdY6x0jqHTOYds55zj"
        "tHZOYdI651jpHUOkc07ZzznHZO0cwhQ6x0DnHSOmdM6h1DqnLOkdo5Z1joHNOmdM6Z1DpnWOWdI7RyjrnQOadM6R1DqHTOsco6Z2jlHXO"
        "ec46Z0iFTrnOOudI6B2TmHPOYdw5pzzpnXOadg6R0DsnLOgcw7hzTnHUOuc07B0TonZOWdA5Z3TmnOOodY5x2DonRIYOUdE6B0DqnPOqd"
        "Y6p1TrHVOscg6R0DoHVOcdY6x1TqnVOsdY5B0jnnROqc46x1TrHVOqdY6pyTpHPOidQg46x2zrnVOkc46p1DpHMOedE5x0TtnXOqdE551"
        "TqHSOWdA6JzjonaOwdU6JzzqHVOkcs6B0DnnRO0dg6h0iHg/9k="
    ),
}
# OpenJPH 0.9.0: ojph_compress -reversible true -num_decomps 3.
HTJ2K = {
    8: (
        "/0//UQApQAAAAAAtAAAAQwAAAAAAAAAAAAAALQAAAEMAAAAAAAAAAAABBwEB/1AACAACAAAABP9SAAwAAgABAAMEBEAB/1wADSBQWFhgWFhYU"
        "FBY/2QAFgABT3BlbkpQSCBWZXIgMC45LjAu/5AACgAAAAAHRQAB/5PAF3rx5ebVKrE4n0XQtRoT5fOxOBoFsXwclsIgAEUAQZeAxxGC2IxAsH"
        "qIZAUK+h9z5+hwi0I0yM4RVAACqbEBwAt2AFsQAW6ACgnihExCMAIw4IBwIIEJ9zKvO51F/md7fkblfwCYYU2kNZckFrn+QBpv2rA16HLt68m"
        "kfgCw2CPEwQ9I3hBx8rD0RWD+UFguvqDwaOnp9rGdAMAL2GAF7lAC+gxokARVdQqGbVarRhTIb2ATKCmJeToJftkXckTgBR8Rh4OkFGxYXsFh"
        "YgHKogoEvAMVEDFn7Wn3EIWML6c5GxjetNVREwfrlrhcxd1x/l/ZG/cDjo9Ukw8Db09K/HPhwzADkkHJZvCEQlcgQ2JEFgoki0CU3jpm8A1Ae"
        "mG8sh3A00XikCilZqRCLosEJnlk/BRzASV7kliTpyMDS4FEMMlCR/2vfa9P+CsL3doa9NiiFI3bUBUpXNp5338fFn4n0cQfrklgqiS3Lui0iw"
        "vcGKOQ6bQDnBW6t7tcIA50aUxSWPYEVcDRAizhxojMiiTIKMmcSoukmAelwcxiVMNb2I1ENLipG9EGB5EZx4FGIxBtITKlqHIAjoOklHY6Jlc"
        "0DUWYSADTzcw08gFWT76ju0v71uVPadqEIQ3M7COUeph6ErB6XACEb/OvCjp8mMLLzXvy04MLngLAF+yEAX7rwAv3KEDNwiSAJIGQzWxIaMSt"
        "wDQPJQvBZdwWTkdU82D0HR6CITZaFlCxynMKwkA4wUfVMZXxDR6Q5qOaEEagiBpqWOhMmALwC3ReqipIBU4GZJC2BbnA3RggxT8KVfwQAlH+F"
        "dEyTgfkFAs2zMg0oArYiqpwa1qeosmt0ViwBdETIBSzuPQYzvQUMChGcCkPXgj9A02aaTvABYT/AXDakGGbIJUZWAEy25A2yNLCFUEDb/ygCF"
        "mrUQAw8P4aQwiCKI8wGICQCJ5LhdDJa4FpHEsWQpTxVrizOxYKixUYoiGw8bJQ1BWucwoMgFEcoLzGKzwFDUjiwP5eKRsnORAoVGjqlFikeah"
        "9cIE44pQsZGvENu1V22cUaMeqQ1jkEUONeoMRLjDqYrWtH4ay7fNSoV83P1rJ0pbyqEX66sXFAeXKoGLWoWRjo0rBo2KqFoR1Cq595zEKkftF"
        "dBUdz2ihXcPFyEeLvGoQmKv8LyMcaJJyRAZEWjfpeMpHnXHwtQLjFLbGRrxDVepVOX4mVVRXqlRMvAnREB2yMgpr9vcKNJNSwrWZCPQs6wNVx"
        "DQTMq2LnWWSI1XkANEmFpDIDEAbFK6xaQckMgMNxIYVR5hKMxuMFKRoWN0wq85MQGJQ4iBmBwJsQOMrJAu9IHaIHS4FFKBwxTcsgpcUO5wKCP"
        "CLKVARJZVWglnKPwyE85tWCcBMjCV2QhMlDluyLLECW7wopYKxWK8jSqbApadEXixUCUkr4AaYrAfJnDoBTCCU1IMEjqILBrorITtvQYaaCBH"
        "QHQldnoOQ6DR4KdjpwQtcpA3goWCvpQAGDF70RMyqVQGoGBJwRS9CmTOWhmwZBeiQ/UTEaEAKkprCuYkIgywrI1XEQTMBU5rAOyYZA1PEAtGm"
        "FZDIDEAbFEIamVhAJDPQAGUnsHokKC2Z2uxOAJC/b2299ZmmSe+7Z02ME3eGA2OvNUFEh0kUOS9QGGo1ZGWeIF6lDZjdDFiMrUK9qE/nnsc+B"
        "ZhanSqcpTGX34IES9mHlTli1blkRa93wvuE6n8ViJRevyNRuaUJpuFow6GI28O/pdFy1c0bt6v8e3fdKb12iMQLgGtNXk9eDdVP/g5JKFDWmf"
        "DhC4c5I89GenZgm79MBsdeapiiSUkVrI1Sh4/xJUkm7tguplYEsQuhxBfkkQhJgYQ9KUr+/ESJUvID4zcaGITEHU8SMwbD/1yCCI4UwV3kuUN"
        "56Il7wD9qENxFli3kMZ0ETITEtZE0RXARSBQzMte5QMYIR+mJIttQh0LhmIAJaEmUB/8oAQIYLkPgAeWFCOE/1hCOqFQgn8iX6EZBkKrrISfz"
        "ZvBF7BQEiCp97hNKkGIETiArneSJDEhRIIbD3xNHSPKQS+CV4v6SOFITFbqIqPFBP4ZkibWkLRMVpn4g8ExhkJ4kcRSiYCdCRP3JggDhWchzo"
        "lyI4BoiAqSvEMYX5Yj+cMZBkC1AzITMl7TrwwgXQasIICRT4BdyoSIIokhUpsTJj8SpCApAZofGf+IgkhJ3S0jMDwz5Ew2RECnytix3sQ88cA"
        "/5JfG7ybKlNGoRG0kCkU1ERwQJ+1q3trf+dnJn0ZcdYCUlasP4y4HIVT2JUHQBsqWKoCND116UBAU7njUHSVZHavsFVUXDDgUyzqo3RBZAaa7"
        "B+fFcQ0IhGMrXva6I7kCkqlDp2NC5tYtGTJU7sXzwAYhRag6a71cVQuZ563Fza5WAoKVPR97OAM7lkJcRHRGkZeABI5VEHGuVEqp7Fbg6REro"
        "2J5nkYGZCf/Z"
    ),
    12: (
        "/0//UQApQAAAAAAtAAAAQwAAAAAAAAAAAAAALQAAAEMAAAAAAAAAAAABCwEB/1AACAACAAAACP9SAAwAAgABAAMEBEAB/1wADSBweHiAeHh4c"
        "HB4/2QAFgABT3BlbkpQSCBWZXIgMC45LjAu/5AACgAAAAAHfwAB/5PAAXrI8e/sz35a0/rRj1a/2sUDwT0tIPux6lZvcYsNapAIRrhddRe32K"
        "AEhSCCUkvFgQnwDwphhKOSimOOy20uGOd4sKsAcjpp5MfoAfc/nQ4dUI0IzlFUhAKpsQHAALpoABbkAAW8CgBKExEAwESFDAMCKCQpmgEmTSq"
        "g8gn7Xfq5PnV2ednJxh7PYAEmvBIEUbMHFGJmC+iJ90gtO9aqVXrdCPwoFH4ALIjKGosrYC2ZmiAcDiYIKEIxPt/wP51bnpLrPL4AwAC9kgAF"
        "75AAL6CA2BAZlSdEGNZZDVWokvId0KTICSJqmYz0RdYEEJOAFz4x4jiEQArStILDmECopmqCkm4A8RYs/P2n3OxhC0WnOTssb1FiovMVrilXc"
        "xcW7mlyyN+4HHR92TOkBnp6S9mL50swA4JByWNwVNAFERKjJqFA0MBYMlmu/QNJreirogV8S0YVI2NSmRGKYG0oMDnEvARzQCoAWIqDI0+M6E"
        "iJoZRQYiglmBDPQBCB76EIHvoQgen/BAv9+eFWbFZDRsWSG1KV495djY+L3xDDjTd1eUluyRUuYUosbB8/rhDpuAPcuoTl44e1QKFBaByNbMd"
        "IQWBoCYZgY+RmQWKi8s/hlBzRlgYzazHhMRdDIhy8tNMzbeqFyDrWpwFkuBB3UlZ9wnIkUI4bH7FrsoZJBBAVHOAq1gn+AVa++47ukxJ4jPac"
        "NwhDczsLu9HTFCVSb/MQL8Rv4hxXJ9MZUvDa35iy4b0CwAF+x0ABfutAAL9ywEBbmAVJAmQ0syChkbeCu8eShcA53gqnM6pZKOoKD9EQqJWFo"
        "mKFh9xSAJx8qK7hvm/xAJx8VBOmCHwNNRt0JkwRvkDnpaqCnOCQARmjbUFOcBcGWPCjQhU8hECEf0UUnrMAecSCDZM4C6hj9nIq3NoQT5EDto"
        "2mwr+NngKDYgSXHsOdngJGjuBSHryg8w80oaTt4YLO/0CmDRm2CVKagRkgM2RIG2Rp+iVo4I0fUYSkXSkAGngjawwhUJBHOMRAKARDHiGERt4"
        "KzrdYshBchlvhdEY1C0XFDg/RENhoeTAqVnjIKTBwCA5QXeN5lAIDIAQc2FjFKR2coChVR+o7wUjzUPhCBcYpbYyNeIar11BZxR1HqkbVWQRQ"
        "4qqDEURh1BWtaPw1N7Y3aoV833GsnkdvKoi/XVqxSXLlKliF1CykUaV26bFqFoR1Cq594dQkaF7buQVHc9ooVDixcyMeL3l9CExV/ikxjjRPJ"
        "IA2c2jHHeCo69Q+FqBcYpbYyNfqGq9SqWX4iwuk/08sTLsJ0YAUZGUU5ujvFQhDVlO4NhOBnmUlA1PENBMyrYmdZZIjVcQC0SYWEMkMQBsUpp"
        "FMLCCRGYAGYkWnO6Sat8FIQYqKVUeYVWcmIDMIcbFnQCMaHyFZ2IfRIXaAFBDgGr5xAayA2OFUQIBfTIGK6GtWEGYpj8EB4bymFcFkIgyBNzZ"
        "R4rwlyxIosMWLYrlGIr2KKJkClp4SubGuEpJW4g04aQwSeEITwBRCSTFI4Ci6bKA7ErLzFlyoiRAB25HQyTsICU6Dl4Ldgw+4QCvAQsFeywEM"
        "GLzoiRhVQAUgYkjAFT0IZc5YCrJlFOYh+5mI0YAUZDWFazMR6FlWRqrEaSZkWhM4y+RGqogFok0sIJEZgTYoTGMTC0hkBqCh7ARWjwRnI1Cb/"
        "QoJC/U+n976zNMk992zpmYJu/TAbHXmqYokOkitcl6koajVkZZ4jPUobMboYsRlcIr2oT+eexz4FmFLOlU5SmMvvwQIl7MOWssWrcsrFr3fAi"
        "4k5J/FYiZPX5Go3NKE0zhaMP2INvHv6XS3tXMiLer/JbvulN67RGIGE3mtOfk9eDdd+/3pJKFDWmfzCFw50g50Z6ZmDqvpgNjrzVMUSSkitcu"
        "VKHh/mqSTd2wXUy4MsguhxM8eSRAQSVhSouRH2yBBUvID4z/RIBISd0tJzA8c/xMKIiFS5H9Z7lIeeOIe8huTf5FlS3ksJyMTIXFNIikaYImT"
        "KCIkrnOBjBGO0J4oz4Y7FMWIcEBLojzDPypAAENlCEyQvhAx/McawhGVASBP5Eu2gy4o0fWSk3kz+CJ2oSBQVOmR7YsESIECJ5CVTpInElC8b"
        "pj9J3GkJA+5BH4h7j8Th0wCKU9S4aF+DMmSbkl5IiYkpB/InhEC6UkSj0KU7IQKpD9JFKD8CnlOlGMQ4VoiguivEAYS5Rj+cMZB0CoEIGbK3U"
        "th/mGEi6BVBICeKfALiQsVQRFdFJaUKPmRuFAhFJHMD4z/RAIhlbhbSmJ+YPibCiIhUuQ/OS5UHnjiHvJLIXAXWbaUB0pERIckAUkioqNACft"
        "at7a1rWckvIyvNYFHA4g/jLhQKp7FDB0AMqUEAQhy96UBAUqEag6QNkdqlgqqi4YcCmWdVC0QSQEvuoXIVxDQiimrU9va6I7lLqvOksIoXGa0"
        "dGSCnd854IFAotWtKnq4qhcp563FxrlfccoKWIW9nAGp7IUREdEcjL5LASOViD+MuBAqnsUMHSJ3RsTFnkcBlgn/2Q=="
    ),
    16: (
        "/0//UQApQAAAAAAtAAAAQwAAAAAAAAAAAAAALQAAAEMAAAAAAAAAAAABDwEB/1AACAACAAAADP9SAAwAAgABAAMEBEAB/1wADSCQmJigmJiYk"
        "JCY/2QAFgABT3BlbkpQSCBWZXIgMC45LjAu/5AACgAAAAAHpwAB/5PAABe6APH/Wtq12n21vloRZAhysE5Yn4uT4H37qxVBDkES1gnr6GJ0sR"
        "JUCYoSSAmge7COLj4XM0GVICjhSWin3CnEwzvR4zNBLUKUcEyxU2XH4hGgO9F9Mi4ej2HLlTSEYDfa+AG91AH3P50OHVCNCM6RVQgCqbEBwAA"
        "Lq4AAF0cAABbYigAEgKdgSllTckoMAyAAmqIpoQDQlJxSAQCVAn7XfvI51SqzktzhHnVwAWbEIhyD65IFKUsGrACEDKwElPxEARCAB1lUq/V3"
        "7XNwdHABzh6iBnYw3RonY5622HBCRk9DzWmoaU+0Tn0AwAAL2OAABfQcAAC9+LqZDGcZKcPtXqtqIHaXXIUpQP4wJsBm6QcwKUAOT+w81FJSk"
        "ixLXkIeClKcZREIeA/EExZ92c+6hCxjX0zBtUtRerLFkZ+jlG8oXj0+aX9jb3/288bTtGWsGz09IXvq53zRA4IByWNwNMgF0JAYAyMZCAyYUT"
        "pXrqVmAMIH+qN65THDaoaFyajZEhBkNDKc5nQv64eAUgyP4ihPCmmUUIGKVDpFKqXilEyRSqVY5UAUoHvpSge+lKB7n4MvL++sImF5oa920pc"
        "1IRdVk4Se985oYcdF2TzM6qUX43fgqzg+f1ERGbgD3rvuLMzoiMCgHSZJs68UElhYgBUtEjEMkCKlvF8XExYZmEWItaqHqxgMCUE9dU2sIftK"
        "jgNieRKJ6m2iZLrAA4bS8WlnV/wfYRgiOEDVzOIAFt99x3dT1pcK9i5XwQHuZ1Q88dTu1YOJVcJhYBsxeFOnyY1S6vh2/KiXEb4CwAAX7GwAA"
        "X7pwAAL9zABmk1ZIEAAmZ+SQ0JjbgXmcyyZCcd4PQtxzUthkcLDVQQ2WhaKjh2uc4sBHOqhrKY7vsEEEPKDasI0Sa+5AwZvQhRBiRnsIqmmIC"
        "W46ABjpoJU2oUFUvxoqeKOEAjC3VWWczoWgcgGM3MWUAfUl9PB17Q4TZNto7Hgb6InwOAYwSbFsTOvJYqcxaU8GEEp8UGTRhvY4IKif0DRggy"
        "JmcQsgRIxkHCpIdPaOBPojkDB+h4milsKUOUaT2cQA4Y0wigAQk1DPoTQyFuB+XwLVnAZtwUb+nWlsNjlISqiNh7iV6F+KSiAY3CA8gzLqwI0"
        "YA2e/F+o4nOUBQqqOoUWyo6+uPhCBOOKW3rKrxDq9VYLMqNGPVI2hljVKxNFDK6PkHQECAGpvt8ztUK+N94tZPI7eVRcWpWrFJcuVQMWtQsoW"
        "jSu3QcVCN6dQvebXBdCFUb1uugqzu5yEVHNhcyof9CGELLx/RMYiiTskQFZ69GOl4KR5qNhCBfby8sOsjXiHV6lUvIyQxaUFp5UTrsJ0RAdkj"
        "IK4LGfVywNWU3jXMyE+Y75DFSJh02IYZ29ZXQxMCUMEGVaAYnMALRB4RqZVkAkM9DQcNh0RKk0l8FIQYq26QiplAkKQAxCXOwi2IDGQshwIRe"
        "MTnVdTkKhym9YwEqobjiVILjyM9TTt7QgzFoeYwHCU9Z1IphEjGXwbjNDzU2yJLEGzL0olmpI8ipkBFPA0lMCcDPDFJGwAm+YzzyI4KkTwBTC"
        "+VyI4GghwWA5EnrIWZCBJkIELEdCDnKDmGgteCoBhvTAAy7QBl4SHKKWWgi4LK1ThyHV6AUh3Evr0KEOh6VhOUZhHuKxZIylYSklgBURYb4Df"
        "qBKnGZChnXCIMckY6CKGCDaAysgkhlosMIFboKVGMkMNJBLYHXCgtNR6q5KAkL9vp/e+5/1L33e507MHT/RjGGvNUFUkpStcjalDUcORlNHDn"
        "sobK7hjrHg1CKYJ2arEvgWYWqWlOUpj1+cECJeTDyn6t1bllC17vhRYJJExWImQr0hIpwKEz5wsUOhBt5d/S6W9vleRFXq/yXHmv4pswxAhbG"
        "a01eTq5G679/vUpQoa6V80cXDnJHnoz07ME3fpgNjrzVBRIbkgoyFSh4/zVJJKZnOplYEvgqhxDdcEgACIkmYIbnQNpOklIzRkPvFQ0iNCKek"
        "0+rA8XQpGOCoiu9ODkgqH1sCCfkwG5K7ybPBT+VlKGQ2coKIQgbQhSTBzMh1roB16rC3nPnvnRKFYwKepHzBrr9vnEDVzIAFlBcAhN06AcA2c"
        "wrkNsqR2I4xKVXHQ1ZdBA6QHQJA4RSJbBlFCLGiUil56eQbDIlVDXPpa+IBjz5yGLfKuSOzQoTSGdHFzI2zGwEyxRrAkhl8IK4knglM0p90VI"
        "gALi+RuHcVIQOE3iiEG36h8jZEEKPEngGMZJj6NMIBjB1AzJS7paSMxAghUbkZIDZx4Bl0gwAowlLykhJDfgWTSoQCkNnBfmJxRKlzx6LSjMG"
        "BNzEPUoTBM2vECfnokXhAvCnJ3eQ5EPUzNiYoSMg68ekQT6X7VvbOxN2bkVVSxYohToZg/mELylSnuOq+0AaEsgBGhy96XK4Cu541S6+FgirH"
        "kqglxAFKUp3bRUSA0w/Jn4rxC0JojqUFFvQxMgGlZ6U7FhvElCqJtks+7F8nAwgVFTB0q4q4okFxR7OkWcPcVgUUo53BxiK7kBFqHHQWkZVxV"
        "EUdCDRrs4FKli+sMKJpFYiQsvgOJZoJ/9k="
    ),
}


def picture(bits):
    """uint8 or uint16 [67, 45] that uses the whole range: a ramp, a texture, and the two ends of the range."""
    y, x = np.mgrid[:SHAPE[0], :SHAPE[1]]
    values = (y * 7919 + x * 104729 + (x * y) ** 2 * 31) % 13 + (x + y) * ((1 << bits) - 20) // 110
    values = values.clip(0, (1 << bits) - 1)
    values[0, 0], values[-1, -1] = 0, (1 << bits) - 1
    return values.astype(np.uint8 if bits == 8 else np.uint16)


def write(path, bits, syntax, **elements):
    """The picture as a DICOM file in one of SYNTAXES."""
    pixels = picture(bits)
    write_dicom(path, pixels, BitsAllocated=8 if bits == 8 else 16, BitsStored=bits, HighBit=bits - 1, **elements)
    dataset, uid = pydicom.dcmread(path), SYNTAXES[syntax]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if syntax in ("rle", "jpeg_2000"):
            dataset.compress(uid, generate_instance_uid=False)
        elif syntax in ("jpeg_lossless", "jpeg_ls", "htj2k"):
            stream = encode_jpeg_lossless(pixels, bits) if syntax == "jpeg_lossless" else base64.b64decode(
                (JPEG_LS if syntax == "jpeg_ls" else HTJ2K)[bits])
            dataset.PixelData = encapsulate([stream])
            dataset["PixelData"].VR = "OB"
            dataset.file_meta.TransferSyntaxUID = uid
        elif syntax == "big_endian":
            dataset.PixelData = pixels.astype(pixels.dtype.newbyteorder(">")).tobytes() + b"\0" * (pixels.nbytes % 2)
            dataset["PixelData"].VR = "OB" if bits == 8 else "OW"
            meta, plain = dataset.file_meta, pydicom.Dataset(dataset)  # One that knows of no encoding yet.
            dataset = plain
            dataset.file_meta = meta
            meta.TransferSyntaxUID = uid
        else:
            dataset.file_meta.TransferSyntaxUID = uid
        implicit, little = uid == ImplicitVRLittleEndian, uid != ExplicitVRBigEndian
        dataset.save_as(path, implicit_vr=implicit, little_endian=little, enforce_file_format=True)
    return path


def encode_jpeg_lossless(pixels, bits):
    """JPEG process 14, selection value 1 (ITU T.81, annex H): each pixel is predicted by its left neighbour."""
    height, width = pixels.shape
    values = pixels.astype(int)
    out = io.BytesIO()

    def segment(marker, body):
        out.write(bytes([0xFF, marker]) + (len(body) + 2).to_bytes(2, "big") + body)

    out.write(b"\xff\xd8")
    segment(0xC3, bytes([bits]) + height.to_bytes(2, "big") + width.to_bytes(2, "big") + b"\x01\x01\x11\x00")
    # 17 categories with codes of five bits each: 0, 1, ..., 16 in order.
    segment(0xC4, b"\x00" + bytes([0, 0, 0, 0, 17] + [0] * 11) + bytes(range(17)))
    segment(0xDA, b"\x01\x01\x00\x01\x00\x00")
    stream = []
    for y in range(height):
        for x in range(width):
            guess = values[y, x - 1] if x else values[y - 1, 0] if y else 1 << (bits - 1)
            difference = (int(values[y, x]) - int(guess) + 32768) % 65536 - 32768
            category = 16 if difference == -32768 else abs(difference).bit_length()
            stream.append(f"{category:05b}")
            if 0 < category < 16:
                stream.append(f"{difference if difference > 0 else difference + (1 << category) - 1:0{category}b}")
    text = "".join(stream)
    text += "1" * (-len(text) % 8)
    data = bytes(int(text[i:i + 8], 2) for i in range(0, len(text), 8))
    out.write(data.replace(b"\xff", b"\xff\x00"))
    out.write(b"\xff\xd9")
    return out.getvalue()

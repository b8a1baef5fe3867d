"""Small ONNX models in the dialects of the tools that write them, for tests: random, and exact in float32."""

import numpy as np
import onnx
import onnxruntime
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

SESSION = onnxruntime.SessionOptions()
SESSION.intra_op_num_threads = 1
SESSION.log_severity_level = 3


class Model:
    """A graph under construction: a chain of nodes."""

    def __init__(self, shape, name="x", opset=15):
        self.shape, self.at, self.opset = shape, name, opset
        self.input = helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        self.nodes, self.constants = [], []

    def constant(self, array, dtype=np.float32):
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.array(array, dtype=dtype), name))
        return name

    def add(self, kind, *constants, name=None, before=(), domain=None, **attributes):
        name = name or f"n{len(self.nodes)}"
        names = [c if isinstance(c, str) else self.constant(c) for c in constants]
        first = [c if isinstance(c, str) else self.constant(c) for c in before]
        node = helper.make_node(kind, [*first, self.at, *names], [name], name, domain=domain, **attributes)
        self.nodes.append(node)
        self.at = name
        return self

    def proto(self, classes=None, output_type=TensorProto.FLOAT):
        output = helper.make_tensor_value_info(self.at, output_type, None if classes is None else [None, classes])
        graph = helper.make_graph(self.nodes, "test", [self.input], [output], self.constants)
        domains = sorted({node.domain for node in self.nodes} - {""})
        opsets = [helper.make_opsetid("", self.opset), *(helper.make_opsetid(d, 1) for d in domains)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8, producer_name="test")

    def save(self, path):
        onnx.save(self.proto(), path)
        return path


def run(proto, x):
    """Outputs of onnxruntime for inputs `(N, ...)`, one at a time."""
    session = onnxruntime.InferenceSession(proto.SerializeToString(), SESSION)
    name = session.get_inputs()[0].name
    return np.stack([session.run(None, {name: point[None].astype(np.float32)})[0].ravel() for point in x])


class Image:
    """Layout of what flows: NCHW, or NHWC with transpositions around convolutions as tf2onnx writes them."""

    def __init__(self, model, shape, last):
        self.model, self.shape, self.last = model, shape, last  # shape: channels, height, width

    def inside(self):
        if self.last:
            self.model.add("Transpose", perm=[0, 3, 1, 2])

    def outside(self):
        if self.last:
            self.model.add("Transpose", perm=[0, 2, 3, 1])

    def spread(self, values):
        """A constant per channel, in the layout."""
        array = np.array(values, dtype=np.float32)
        return array if self.last else array.reshape(-1, 1, 1)


def add_sign(draw, model, spread, units):
    """A sign in one of the dialects; the values (below, above) that it gives."""
    kind = draw(st.sampled_from(["larq", "shifted", "where", "where>", "bits", "less", "clipped", "bipolar"]))
    if kind == "larq":
        model.add("Sign").add("Add", 0.1).add("Sign")
    elif kind == "shifted":
        model.add("Add", 1 / 64).add("Sign")
    elif kind == "where":
        model.add("GreaterOrEqual", 0.0).add("Where", 1.0, -1.0)
    elif kind == "where>":
        model.add("Greater", np.array([0.0])).add("Where", 2.0, -2.0)
        return -2, 2
    elif kind == "bits":
        model.add("GreaterOrEqual", 0.0).add("Cast", to=TensorProto.FLOAT)
        return 0, 1
    elif kind == "less":
        model.add("Less", 0.0).add("Not").add("Cast", to=TensorProto.FLOAT).add("Mul", 2.0).add("Sub", 1.0)
    elif kind == "clipped":
        model.add("Add", 1 / 64).add("Clip", -1.0, 1.0).add("Sign")
    else:
        model.add("GreaterOrEqual", 0.0).add("Cast", to=TensorProto.FLOAT).add("Sub", 0.5).add("Div", 0.5)
    return -1, 1


def add_constants(draw, model, spread, units, axis):
    """Batch norm, its parts, or nothing; never rounded where a sign would see it."""
    kind = draw(st.sampled_from(["none", "parts", "norm", "negated"]))
    factors = st.lists(st.sampled_from([-2.0, -1.0, 0.5, 1.0, 4.0]), min_size=units, max_size=units)
    shifts = st.lists(st.sampled_from([-2.0, -1.0, 0.0, 0.5, 1.0, 3.0]), min_size=units, max_size=units)
    if kind == "parts":
        model.add("Mul", spread(draw(factors))).add("Add", spread(draw(shifts)))
    elif kind == "negated":
        model.add("Sub", before=[spread(draw(shifts))]).add("Neg").add("Div", spread(draw(factors)))
    elif kind == "norm":
        # no sum is the mean, so the float rounding of the square root cannot move a sign
        mean = [v + 1 / 32 for v in draw(st.lists(st.integers(-3, 3), min_size=units, max_size=units))]
        variance = draw(st.lists(st.sampled_from([0.5, 1.0, 2.0, 7.0]), min_size=units, max_size=units))
        if axis != 1:
            model.add("Transpose", perm=[0, 3, 1, 2])
        gamma = [v if v else 1.0 for v in draw(factors)]
        model.add("BatchNormalization", gamma, [0.0] * units, mean, variance, epsilon=0.25)
        if axis != 1:
            model.add("Transpose", perm=[0, 2, 3, 1])


def signs(draw, shape):
    return np.array(
        draw(st.lists(st.sampled_from([-1, 1]), min_size=int(np.prod(shape)), max_size=int(np.prod(shape))))
    )


@st.composite
def models(draw):
    """`(proto, input shape as in the file)`: convolutions and dense layers over small integers."""
    last = draw(st.booleans())
    channels, height, width = draw(st.integers(1, 2)), draw(st.integers(3, 5)), draw(st.integers(3, 5))
    model = Model([None, height, width, channels] if last else [None, channels, height, width])
    file_shape = tuple(model.shape[1:])
    image = Image(model, (channels, height, width), last)
    values = None  # of the signs that flow; None: integers
    for _ in range(draw(st.integers(0, 2))):
        c, h, w = image.shape
        kernel = draw(st.integers(1, min(3, h))), draw(st.integers(1, min(3, w)))
        filters, step = draw(st.integers(1, 3)), draw(st.integers(1, 2))
        pads = [draw(st.integers(0, 1)) for _ in range(4)] if values in (None, "turned", (-1, 1), (0, 1)) else [0] * 4
        weights = signs(draw, (filters, c, *kernel)).reshape(filters, c, *kernel)
        scale = np.array(draw(st.lists(st.sampled_from([0.5, 1.0, 3.0]), min_size=filters, max_size=filters)))
        image.inside()
        if values == (-1, 1) and draw(st.booleans()):
            around = model.constant([0, 0, pads[0], pads[1], 0, 0, pads[2], pads[3]], np.int64)
            model.add("Pad", around, model.constant(1.0))
            h, w, pads = h + pads[0] + pads[2], w + pads[1] + pads[3], [0] * 4
        bias = [draw(st.sampled_from([-1.0, 0.0, 1.5])) for _ in range(filters)]
        model.add("Conv", weights * scale.reshape(-1, 1, 1, 1), bias, strides=[step, step], pads=pads)
        h = (h + pads[0] + pads[2] - kernel[0]) // step + 1
        w = (w + pads[1] + pads[3] - kernel[1]) // step + 1
        pool = draw(st.sampled_from(["no", "before", "after", "overlap"])) if min(h, w) >= 2 else "no"
        window = {"kernel_shape": [2, 2], "strides": [1, 1] if pool == "overlap" else [2, 2]}
        if pool == "before":
            model.add("MaxPool", **window)
        image.outside()
        image.shape = (filters, h, w)
        add_constants(draw, model, image.spread, filters, 3 if last else 1)
        values = add_sign(draw, model, image.spread, filters)
        if values == (-1, 1) and draw(st.booleans()):
            turned = st.lists(st.sampled_from([-1.0, 1.0]), min_size=filters, max_size=filters)
            model.add("Mul", image.spread(draw(turned)))
            values = "turned"
        if pool in ("after", "overlap"):
            image.inside()
            model.add("MaxPool", **window)
            image.outside()
        if pool != "no":
            h, w = (h - 1, w - 1) if pool == "overlap" else (h // 2, w // 2)
        image.shape = (filters, h, w)
    n = int(np.prod(image.shape))
    if draw(st.booleans()):
        model.add("Flatten", axis=1)
    else:
        model.add("Reshape", model.constant([-1, n], np.int64))
    if draw(st.booleans()):
        m = draw(st.integers(1, 4))
        weights = signs(draw, (m, n)).reshape(m, n)
        if draw(st.booleans()):
            model.add("Gemm", weights * 0.5, [1.0] * m, transB=1)
        else:
            model.add("MatMul", weights.T)
        add_constants(draw, model, np.array, m, 1)
        add_sign(draw, model, np.array, m)
        n = m
    classes = draw(st.integers(2, 3))
    model.add("MatMul", signs(draw, (n, classes)).reshape(n, classes))
    if draw(st.booleans()):
        model.add("Mul", [draw(st.sampled_from([0.5, 1.0, 2.0])) for _ in range(classes)])
        model.add("Add", [draw(st.sampled_from([0.0, 0.5, 1.0])) for _ in range(classes)])
    return model.proto(classes), file_shape

"""Fetches three more styles of drawings with npm: more-drawings.py DIR fills DIR/noto, DIR/fluent-flat, DIR/fluent-3d.

Noto (Apache-2.0) and Fluent flat (MIT) come as one JSON of SVG bodies, Fluent 3D (MIT) as WebP files.
"""
import hashlib, io, json, os, shutil, subprocess, sys, tarfile, tempfile

PACKAGES = [
    ("noto", "@iconify-json/noto@1.2.9",
     "0d08ae5c435bba7e35721f973d2579e47f456962a91d3cb3e3a6082ad49a2980f87c80c3ccbd6d47a1f89e9fd3dfc8dfad301e237adc285d26a8761e65502e6b"),
    ("fluent-flat", "@iconify-json/fluent-emoji-flat@1.2.6",
     "458e3b4603dbe3b7d8522cab03ae2c20e2f4f94534dacdbdb17a4d05b2104415253e57cd1532949990c4446bb10ecffbc8d196a9062fb9a4983353387d15e553"),
    ("fluent-3d", "@lobehub/fluent-emoji-3d@1.1.0",
     "5a5ab69554ad4e7afc043a48274a449d328ee0bb83c71a931214ef46d0f50cb445d267bba207914232a87a10c75ee549d9069e720979c1106feb4954006de1ee"),
]


def files(tar):
    """(name, bytes) of every drawing in a package, named by its code points."""
    if "package/icons.json" in tar.getnames():
        icons = json.load(tar.extractfile("package/icons.json"))
        for code, name in json.load(tar.extractfile("package/chars.json")).items():
            icon = icons["icons"].get(name)
            if icon:
                w, h = (icon.get(side, icons.get(side, 16)) for side in ("width", "height"))
                svg = f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="0 0 {w} {h}">{icon["body"]}</svg>'
                yield code + ".svg", svg.encode()
    else:
        for member in tar.getmembers():
            if member.name.startswith("package/assets/") and member.name.endswith(".webp"):
                yield os.path.basename(member.name), tar.extractfile(member).read()


def fetch(package, sha512):
    with tempfile.TemporaryDirectory() as folder:
        name = subprocess.run(["npm", "pack", "--silent", package], cwd=folder, check=True, capture_output=True, text=True).stdout.split()[-1]
        with open(os.path.join(folder, name), "rb") as f:
            data = f.read()
    found = hashlib.sha512(data).hexdigest()
    if found != sha512:
        sys.exit(f"{package}: SHA-512 is {found}, expected {sha512}")
    return tarfile.open(fileobj=io.BytesIO(data))


for style, package, sha512 in PACKAGES:
    out = os.path.join(sys.argv[1], style)
    if not os.path.isdir(out):
        part = out + ".part"
        shutil.rmtree(part, ignore_errors=True)
        os.makedirs(part)
        for name, data in files(fetch(package, sha512)):
            with open(os.path.join(part, name), "wb") as f:
                f.write(data)
        os.rename(part, out)

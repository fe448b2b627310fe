"""lxml in the image "science": each of its parts, its readers of pandas, encodings, files, and hostile documents."""

from __future__ import annotations

import gzip

import pytest

from wasm_sandbox import CodeResult, ErrorKind, Image, Limits, Tool, run_code, run_tool
from wasm_sandbox.results import ToolError

HEAD = """
import io
from lxml import etree, html, objectify
from lxml.builder import E
books = etree.XML('''<books xmlns:x="urn:x"><book id="1" x:price="12.5"><title>Sea</title></book>
<book id="2" x:price="7"><title>Air &amp; Fire</title><title lang="no">Luft</title></book></books>''')
"""

CALLS = {
    "a path": ("[t.text for t in books.findall('book/title')]", ["Sea", "Air & Fire", "Luft"]),
    "a path with a predicate": ("books.find(\".//book[@id='2']/title[@lang]\").text", "Luft"),
    "XPath": ("books.xpath('//book[@x:price > 10]/title/text()', namespaces={'x': 'urn:x'})", ["Sea"]),
    "XPath that computes": ("books.xpath('sum(book/@id) + count(//title) * 0.5')", 4.5),
    "XPath with variables": ("books.xpath('string(book[@id = $n]/title)', n=2)", "Air & Fire"),
    "XPath with regular expressions": (
        "books.xpath(\"//title[re:test(., '^[AL]')]/text()\", namespaces={'re': 'http://exslt.org/regular-expressions'})",
        ["Air & Fire", "Luft"],
    ),
    "XPath compiled": (
        "etree.XPath('//title')(books)[0].getroottree().getpath(books[1][0])",
        "/books/book[2]/title[1]",
    ),
    "functions of XPath in Python": (
        "etree.FunctionNamespace('urn:f').update({'twice': lambda _, n: n * 2})"
        " or books.xpath('f:twice(3)', namespaces={'f': 'urn:f'})",
        6.0,
    ),
    "text that is written": (
        "etree.tostring(books[0], encoding='unicode', with_tail=False)",
        '<book xmlns:x="urn:x" id="1" x:price="12.5"><title>Sea</title></book>',
    ),
    "text that is indented": (
        "etree.tostring(E.a(E.b('c', d='é')), pretty_print=True, xml_declaration=True, encoding='ascii').decode()",
        "<?xml version='1.0' encoding='ascii'?>\n<a>\n  <b d=\"&#233;\">c</b>\n</a>\n",
    ),
    "changes": (
        "[books[0].append(books[1][1]), books[0].set('n', '1'), books[1].remove(books[1][0]),"
        " etree.strip_attributes(books, 'id'), len(books[0]), len(books[1]), dict(books[0].attrib)][4:]",
        [2, 0, {"n": "1", "{urn:x}price": "12.5"}],
    ),
    "events": (
        "[(e, n.tag) for e, n in etree.iterparse(io.BytesIO(b'<a><b/><c/></a>'), events=('start', 'end'), tag='b')]",
        [("start", "b"), ("end", "b")],
    ),
    "parts": (
        "(lambda p: [p.feed('<a><b'), p.feed('/><c/>'), [n.tag for _, n in p.read_events()]][2])"
        "(etree.XMLPullParser(events=('end',)))",
        ["b", "c"],
    ),
    "a target": (
        "etree.XML('<a x=\"1\">b<c/></a>', etree.XMLParser(target=type('T', (), {'n': '',"
        " 'start': lambda s, t, a: setattr(s, 'n', s.n + t + str(dict(a))),"
        " 'data': lambda s, d: setattr(s, 'n', s.n + d),"
        " 'end': lambda s, t: None, 'close': lambda s: s.n})()))",
        "a{'x': '1'}bc{}",
    ),
    "SAX": (
        "(lambda h: [__import__('lxml.sax').sax.saxify(books, h), etree.tostring(h.etree) == etree.tostring(books)][1])"
        "(__import__('lxml.sax').sax.ElementTreeContentHandler())",
        True,
    ),
    "a transformation": (
        'str(etree.XSLT(etree.XML(\'<xsl:stylesheet version="1.0" xmlns:xsl="http://www.w3.org/1999/XSL/Transform">'
        '<xsl:output method="text"/><xsl:param name="p"/><xsl:key name="k" match="book" use="@id"/>'
        '<xsl:template match="/"><xsl:for-each select="//title"><xsl:sort select="." order="descending"/>'
        '<xsl:number value="position()" format="i"/>'
        '<xsl:value-of select="concat($p, .)"/>;</xsl:for-each><xsl:value-of select="key(&quot;k&quot;, 2)/@id"/>'
        "</xsl:template></xsl:stylesheet>'))(books, p=etree.XSLT.strparam('-')))",
        "i-Sea;ii-Luft;iii-Air & Fire;2",
    ),
    "extensions of transformations": (
        'str(etree.XSLT(etree.XML(\'<xsl:stylesheet version="1.0" xmlns:xsl="http://www.w3.org/1999/XSL/Transform"'
        ' xmlns:d="http://exslt.org/dates-and-times" xmlns:m="http://exslt.org/math" xmlns:s="http://exslt.org/strings">'
        '<xsl:output method="text"/><xsl:template match="/"><xsl:value-of select="d:year(&quot;2024-02-29&quot;)"/>,'
        '<xsl:value-of select="m:max(//@id)"/>,<xsl:value-of select="s:padding(3, &quot;ab&quot;)"/>'
        "</xsl:template></xsl:stylesheet>'))(books))",
        "2024,2,aba",
    ),
    "a schema": (
        "(lambda s: [s.validate(etree.XML('<a>3</a>')), s.validate(etree.XML('<a>x</a>')), s.error_log[0].message])"
        '(etree.XMLSchema(etree.XML(\'<s:schema xmlns:s="http://www.w3.org/2001/XMLSchema">'
        '<s:element name="a" type="s:int"/></s:schema>\')))',
        [True, False, "Element 'a': 'x' is not a valid value of the atomic type 'xs:int'."],
    ),
    "RELAX NG": (
        "(lambda s: [s(etree.XML('<a><b/></a>')), s(etree.XML('<a/>'))])(etree.RelaxNG(etree.XML("
        '\'<element name="a" xmlns="http://relaxng.org/ns/structure/1.0"><oneOrMore><element name="b"><empty/>'
        "</element></oneOrMore></element>')))",
        [True, False],
    ),
    "a DTD": (
        "(lambda d: [d.validate(etree.XML('<a><b/></a>')), d.validate(etree.XML('<a/>')),"
        " [e.name for e in d.iterelements()]])"
        "(etree.DTD(io.StringIO('<!ELEMENT a (b)><!ELEMENT b EMPTY>')))",
        [True, False, ["a", "b"]],
    ),
    "Schematron": (
        "(lambda s: [s(etree.XML('<a n=\"1\"/>')), s(etree.XML('<a/>'))])(__import__('lxml.isoschematron')."
        'isoschematron.Schematron(etree.XML(\'<schema xmlns="http://purl.oclc.org/dsdl/schematron"><pattern>'
        '<rule context="a"><assert test="@n">no n</assert></rule></pattern></schema>\')))',
        [True, False],
    ),
    "objects": (
        "(lambda o: [o.a + 1, o.b[1].text, type(o.c).__name__, o.d.pyval, [c.tag for c in o.getchildren()],"
        " str(objectify.ObjectPath('r.b[0]')(o))])"
        "(objectify.fromstring('<r><a>3</a><b>x</b><b>y</b><c>1.5</c><d>true</d></r>'))",
        [4, "y", "FloatElement", True, ["a", "b", "b", "c", "d"], "x"],
    ),
    "classes of elements": (
        "(lambda p: etree.XML('<a><b/></a>', p)[0].twice)([p := etree.XMLParser(), p.set_element_class_lookup("
        "etree.ElementDefaultClassLookup(element=type('B', (etree.ElementBase,),"
        " {'twice': property(lambda s: s.tag * 2)})))][0])",
        "bb",
    ),
    "canonical form": (
        "etree.canonicalize('<a z=\"1\" b=\"2\"><!-- c --><b /></a>') + etree.tostring(etree.XML('<a><b/></a>'),"
        " method='c14n').decode()",
        '<a b="2" z="1"><b></b></a><a><b></b></a>',
    ),
    "broken HTML": (
        "html.tostring(html.fromstring('<p>one<p>two <b>bold<i>both</b> &eacute;<br>'), encoding='unicode')",
        "<div><p>one</p><p>two <b>bold<i>both</i></b> é<br></p></div>",
    ),
    "links": (
        '[link[2] for link in html.fromstring(\'<div><a href="x">y</a><img src="z.png"></div>\','
        " base_url='http://e.org/d/').iterlinks()]",
        ["x", "z.png"],
    ),
    "forms": (
        "dict(html.fromstring('<form><input name=a value=1><select name=b><option selected>2</select></form>')"
        ".form_values())",
        {"a": "1", "b": "2"},
    ),
    "differences": (
        "__import__('lxml.html.diff').html.diff.htmldiff('<p>one two</p>', '<p>one three</p>')",
        "<p>one <ins>three</ins> <del>two</del> </p>",
    ),
    "a document of HTML": ("html.document_fromstring('<title>T</title>x').findtext('.//title')", "T"),
    "entities of HTML": ("html.fragment_fromstring('<a>&euro;&nbsp;&#8364;</a>').text", "€\xa0€"),
    "comments and instructions": (
        "[n.text for n in etree.XML('<a><!--c--><?p q?></a>')]",
        ["c", "q"],
    ),
    "copies": ("etree.tostring(__import__('copy').deepcopy(books)) == etree.tostring(books)", True),
    "pickles of objects": (
        "etree.tostring(__import__('pickle').loads(__import__('pickle').dumps(objectify.fromstring('<a><b>1</b></a>'))))",
        b"<a><b>1</b></a>",
    ),
    "written piece by piece": (
        "(lambda f: [write(f), f.getvalue()][1])(io.BytesIO())",
        b"<a><b>1</b><c/></a>",
    ),
    "the versions": (
        "[etree.LIBXML_VERSION[:2] >= (2, 15), etree.LIBXSLT_VERSION[:2],"
        " sorted({'iconv', 'zlib', 'xpath', 'xmlschema'} & set(etree.LIBXML_FEATURES))]",
        [True, (1, 1), ["iconv", "xmlschema", "xpath", "zlib"]],
    ),
}

WRITE = """
def write(file):
    with etree.xmlfile(file) as out, out.element("a"):
        with out.element("b"):
            out.write("1")
        out.write(etree.Element("c"))
"""


def ended(code: str, **options: object) -> CodeResult:
    result = run_code(HEAD + code, image="science", **options)  # type: ignore[arg-type]
    assert result.error is None, result.error
    return result


def failed(code: str, **limits: object) -> ToolError:
    error = run_code(HEAD + code, image="science", limits=Limits.model_validate(limits)).error
    assert error is not None
    return error


@pytest.mark.parametrize("name", CALLS)
def test_what_it_can_do(name: str) -> None:
    expression, value = CALLS[name]
    assert ended(f"{WRITE}\n{expression}").value == value


@pytest.mark.parametrize(
    ("encoding", "text"),
    [("utf-16", "žluť €"), ("utf-32", "žluť €"), ("iso-8859-2", "žluť"), ("iso-8859-15", "né €"),
     ("windows-1252", "né €"), ("windows-1251", "Привет"), ("koi8-r", "Привет"), ("shift_jis", "日本語テスト"),
     ("euc-jp", "日本語テスト"), ("iso-2022-jp", "日本語")],
)  # fmt: skip
def test_encodings_are_read_and_written(encoding: str, text: str) -> None:
    code = f"""
given = "<?xml version='1.0' encoding='{encoding}'?><a>{text}</a>".encode({encoding!r})
read = etree.XML(given)
[read.text, etree.XML(etree.tostring(read, encoding={encoding!r}, xml_declaration=True)).text]
"""
    assert ended(code).value == [text, text]


@pytest.mark.parametrize(
    ("encoding", "text"), [("gb18030", "简体中文€"), ("gbk", "简体中文"), ("big5", "繁體中文"), ("euc-kr", "한국어")]
)
def test_some_encodings_are_only_read(encoding: str, text: str) -> None:
    head = f"given = \"<?xml version='1.0' encoding='{encoding}'?><a>{text}</a>\".encode({encoding!r})\n"
    assert ended(f"{head}etree.XML(given).text").value == text
    error = failed(f"{head}etree.tostring(etree.XML(given), encoding={encoding!r})")
    assert (error.exception_name, error.message) == ("LookupError", f"unknown encoding: '{encoding}'")


@pytest.mark.parametrize("encoding", ["ascii", "iso-8859-2", "windows-1252", "koi8-r", "shift_jis"])
def test_a_character_that_an_encoding_lacks_is_written_as_a_reference(encoding: str) -> None:
    text = "x\N{SNOWMAN}\N{GRINNING FACE}y"
    code = f"a = etree.Element('a')\na.text = {text!r}\netree.tostring(a, encoding={encoding!r})"
    assert b"<a>x&#9731;&#128512;y</a>" in ended(code).value


def test_an_encoding_that_is_unknown_is_an_error() -> None:
    error = failed("etree.XML(b\"<?xml version='1.0' encoding='nowhere'?><a/>\")")
    assert error.exception_name == "XMLSyntaxError"
    assert "nowhere" in error.message


def test_files_of_a_run_are_read_and_written() -> None:
    code = """
tree = etree.parse("/data/a.xml")
tree.xinclude()
tree.write("/tmp/b.xml", encoding="utf-8", xml_declaration=True)
tree.write("/tmp/c.xml.gz", compression=9)
packed = open("/tmp/c.xml.gz", "rb").read()
with open("/tmp/b.xml", "rb") as file:
    again = etree.parse(file)
print("still here")
[etree.parse("/tmp/b.xml").docinfo.encoding, etree.tostring(again, encoding="unicode"), packed[:2],
 etree.parse("/tmp/c.xml.gz", etree.XMLParser(decompress=True)).findtext("b"),
 etree.parse("/data/a.xml", etree.XMLParser(decompress=True)).getroot().tag,
 etree.parse("/data/d.xml.gz", etree.XMLParser(decompress=True)).getroot().tag]
"""
    files = {
        "/data/a.xml": b'<a xmlns:i="http://www.w3.org/2001/XInclude"><i:include href="b.xml"/></a>',
        "/data/b.xml": b"<b>1</b>",
        "/data/d.xml.gz": gzip.compress(b"<d/>"),
    }
    result = ended(code, files=files)
    text = '<a xmlns:i="http://www.w3.org/2001/XInclude"><b>1</b></a>'
    assert result.value == ["UTF-8", text, b"\x1f\x8b", "1", "a", "d"]
    assert result.stdout == ["still here\n"]


def test_pandas_reads_and_writes_with_it() -> None:
    code = """
import pandas as pd
table = "<table><tr><th>a</th><th>b</th></tr><tr><td>1</td><td>x</td></tr></table>"
frame = pd.read_html(io.StringIO(table))[0]
text = frame.to_xml(index=False)
back = pd.read_xml(io.StringIO(text))
[frame, back.equals(frame), pd.read_xml(io.StringIO(text), xpath="//row[a=1]", dtype={"a": "float"}).a[0]]
"""
    assert ended(code).value == [[{"a": 1, "b": "x"}], True, 1.0]


def test_texts_and_values_of_its_own_classes_arrive_as_plain_data() -> None:
    source = """
from lxml import etree, objectify
def f() -> dict:
    tree = etree.XML("<a b='c'>d<e/>f</a>")
    values = objectify.fromstring("<r><i>3</i><s>x</s><n>1.5</n><t>true</t></r>")
    found = tree.xpath("//@b | //text()")
    return {found[0]: found, "values": [values.i, values.s, values.n, values.t], "one": tree.xpath("string(//e)")}
"""
    result = run_tool(Tool.from_source(source), {}, image="science")
    assert result.status == "success", result.error
    assert result.func_return == {"c": ["c", "d", "f"], "values": [3, "x", 1.5, True], "one": ""}
    error = run_tool(
        Tool.from_source("from lxml import etree\ndef f():\n    return etree.XML('<a/>')"), image="science"
    ).error
    assert error is not None
    assert error.kind is ErrorKind.FORBIDDEN_RESULT or error.exception_name == "TypeError"


@pytest.mark.long  # resolves packages
def test_packages_on_top_find_it() -> None:
    image = Image.build(["beautifulsoup4", "cssselect", "lxml_html_clean"], base="science")
    code = """
import bs4, lxml.html, lxml.html.clean
soup = bs4.BeautifulSoup("<p class=a>one<p>two", "lxml")
[soup.select_one("p.a").text, str(bs4.BeautifulSoup("<a><b/></a>", "xml").a),
 lxml.html.fromstring("<p class=a>one</p>").cssselect("p.a")[0].text,
 lxml.html.clean.clean_html("<p onclick='x()'>a<script>b</script></p>")]
"""
    result = run_code(code, image=image)
    assert result.error is None, result.error
    assert result.value == ["one", "<a><b/></a>", "one", "<p>a</p>"]


# -- hostile documents -----------------------------------------------------------------------------------------

LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
REFUSED = {
    "a billion laughs": (f"etree.XML('<!DOCTYPE a [<!ENTITY l0 \"ha\">{LAUGHS}]><a>&l9;</a>')", "amplification"),
    "one great entity": (
        "etree.XML('<!DOCTYPE a [<!ENTITY l \"' + 'x' * 10**5 + '\">]><a>' + '&l;' * 10**4 + '</a>')",
        "amplification",
    ),
    "an entity of itself": ("etree.XML('<!DOCTYPE a [<!ENTITY l \"&l;\">]><a>&l;</a>')", "loop"),
    "nesting": ("etree.XML('<a>' * 10**5)", "depth"),
    "much nesting": ("etree.XML('<a>' * 10**5, etree.XMLParser(huge_tree=True))", "depth"),
    "an end that is missing": ("etree.XML('<a><b></a>')", "mismatch"),
    "zeros": ("etree.XML(b'<a>\\x00</a>')", ""),
    "nothing": ("etree.XML(b'')", "empty"),
    "a file that is not there": ("etree.parse('/etc/passwd')", "failed to load"),
    "a network": ("etree.parse('http://127.0.0.1:1/')", "failed to load"),
    "a DTD of a network": (
        "etree.XML('<!DOCTYPE a SYSTEM \"http://127.0.0.1:1/a.dtd\"><a/>',"
        " etree.XMLParser(dtd_validation=True, no_network=False))",
        "failed to load",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_hostile_documents_are_refused_in_its_own_words(name: str) -> None:
    code, words = REFUSED[name]
    error = failed(code, timeout_seconds=30)
    assert (error.kind, error.exception_name) in (
        (ErrorKind.TOOL_EXCEPTION, "XMLSyntaxError"),
        (ErrorKind.TOOL_EXCEPTION, "OSError"),
    ), error
    assert words in error.message


def test_entities_of_files_show_files_of_the_run_at_most() -> None:
    code = """
parser = etree.XMLParser(resolve_entities=True, no_network=False, load_dtd=True)
def text(path):
    return etree.XML(f'<!DOCTYPE a [<!ENTITY e SYSTEM "{path}">]><a>&e;</a>', parser).text
[text(path) for path in ("/data/e", "file:///data/e", "/etc/passwd", "file:///etc/hostname", "http://127.0.0.1:1/")]
"""
    value = ended(code, files={"/data/e": b"own"}).value
    assert value == ["own", "own", None, None, None]  # as elsewhere, if there is no such file


ENDLESS = {
    "a template that calls itself": (
        'etree.XSLT(etree.XML(\'<xsl:stylesheet version="1.0" xmlns:xsl="http://www.w3.org/1999/XSL/Transform">'
        '<xsl:template name="t" match="/"><xsl:call-template name="t"/></xsl:template></xsl:stylesheet>\'))(books)'
    ),
    "loops in a path": (
        "wide = etree.XML('<a>' + '<b/>' * 3000 + '</a>')\n"
        "wide.xpath('count(//b[count(//b[count(//b[count(//b) > 0]) > 0]) > 0])')"
    ),
    "a pattern of a schema": (
        'etree.XMLSchema(etree.XML(\'<s:schema xmlns:s="http://www.w3.org/2001/XMLSchema"><s:element name="a">'
        '<s:simpleType><s:restriction base="s:string"><s:pattern value="((a{1,99}){1,99}){1,99}"/></s:restriction>'
        "</s:simpleType></s:element>"
        "</s:schema>')).validate(etree.XML('<a>' + 'a' * 9999 + 'b</a>'))\nwhile True: pass"
    ),
    "nested parentheses": "books.xpath('(' * 10**5 + '1' + ')' * 10**5)",
    "a long path": "books.xpath('/..' * 10**5)",
    "a deep tree": (
        "a = top = etree.Element('a')\n"
        "for _ in range(10**5):\n    a = etree.SubElement(a, 'a')\n"
        "[etree.tostring(top), top.xpath('string(//a)'), __import__('copy').deepcopy(top), list(top.iter())]\n"
        "while True: pass"
    ),
    "deep HTML": "html.fromstring('<div>' * 10**5)\nhtml.fromstring('<b><p>' * 10**5)\nwhile True: pass",
    "a document without end": (
        "class Endless:\n    def read(self, n=-1):\n        return b'<a>' if n < 0 else b'<a b=\"c\"/>' * 100\n"
        "p = etree.XMLPullParser()\np.feed('<r>')\nwhile True: p.feed(Endless().read(1))"
    ),
    "text without end": "p = etree.XMLPullParser()\np.feed('<r>')\nwhile True: p.feed('x' * 10**6)",
}


ENDS = {"XSLTApplyError", "XPathEvalError", "XMLSyntaxError", "XMLSchemaValidateError", "MemoryError"}
"""Exceptions of lxml for a limit of its own, or for want of memory."""


@pytest.mark.parametrize("name", ENDLESS)
def test_what_has_no_end_ends_at_a_limit(name: str) -> None:
    error = failed(ENDLESS[name], timeout_seconds=1, memory_bytes=256 << 20)
    assert error.kind in (
        ErrorKind.TIMEOUT,
        ErrorKind.OUT_OF_MEMORY,
        ErrorKind.STACK_OVERFLOW,
        ErrorKind.TOOL_EXCEPTION,
    ), error
    if error.kind is ErrorKind.TOOL_EXCEPTION:
        assert error.exception_name in ENDS, error


def test_want_of_memory_is_told_as_that() -> None:
    for code in ("etree.XML('<a>' + '<b c=\"d\"/>' * 10**7 + '</a>')", "etree.XML('<a>' + 'x' * 9 * 10**7 + '</a>')"):
        error = failed(code, timeout_seconds=60, memory_bytes=256 << 20)
        assert error.kind is ErrorKind.OUT_OF_MEMORY, error

"""Writes random texts for training as class ids.

python scripts/pretrain/texts.py DATA OUT --count 160000 --seed 0

Reads charset.txt, groups.txt (look-alikes), words.xz and corpus.xz of the folder DATA and writes OUT/texts-SEED.npz:
`rows`, `[COUNT,44]` class ids padded with 0, and `lengths`. The same seed gives the same texts.

The texts are running text (16 %), words by frequency (10 %), words with some characters exchanged for look-alikes
(8 %), look-alikes (22 %), uniform characters (11 %), values found on forms, such as dates and amounts (11 %), fields of
forms, that is, labels with values (20 %), and look-alikes mixed with punctuation (2 %).
"""

import argparse
import bisect
import lzma
import os
import random
from pathlib import Path

import numpy as np

from jaxcrnn.charset import Charset
from jaxcrnn.lookalikes.groups import read_groups
from jaxcrnn.render.texts import spaced

# Shortest and longest text of each bucket of widths, and the order in which the buckets take turns.
SPANS = ((1, 8), (6, 20), (14, 44))
CYCLE = (0, 1, 0, 1, 2)
LONGEST = max(longest for _, longest in SPANS)
HAN, RARE = 6763, 3008  # the charset ends with the Han of GB2312, the last of which are level 2
SOFTENING = 0.55  # power of the words' frequencies: between uniform (0) and as in the language (1)
FIRST_HAN = 0x3400  # full-width signs lie above it too

SIGNS = "，。、：；（）《》“”·—:,.()-/"
LATIN = "abcdefghijklmnopqrstuvwxyz"
BY_FREQUENCY = "etaoinshrdlucmfwypvbgkqjxz"
FREQUENCIES = (12, 9, 8, 8, 7, 7, 6, 6, 6, 4, 4, 3, 3, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1)
DIGITS = "0123456789"
CAPITAL_DIGITS = "零壹贰叁肆伍陆柒捌玖"
LABELS = """
    日期 时间 编号 序号 姓名 性别 年龄 地址 电话 手机 传真 邮编 邮箱 网址 单位 部门 职务 备注 说明 合计 小计 总计
    总金额 金额 单价 数量 规格 型号 品名 名称 产品名称 产品代码 基金名称 基金代码 基金账号 交易账号 申请日期
    确认日期 申请金额 确认金额 申请份额 确认份额 单位净值 累计净值 手续费 申购费 赎回费 管理费 托管费 费率 利率 税率
    税额 余额 可用余额 冻结金额 账户 账号 帐号 户名 开户行 开户银行 银行账号 收款人 付款人 收款账号 汇款用途
    业务类型 业务名称 业务代码 交易日期 交易类型 交易金额 交易时间 交易市场 交易费用 成交价格 成交数量 成交金额
    证券代码 证券名称 证券账户 股东账号 资金账号 客户名称 客户姓名 客户编号 客户类型 证件类型 证件号码 身份证号
    营业执照 经办人 操作员 复核人 审核人 审批 批准 制表人 制表 制单 打印日期 打印时间 打印人 起始日期 结束日期
    有效期 到期日 生产日期 保质期 批号 订单号 合同编号 合同金额 发票号码 发票代码 流水号 凭证号 页码 第 页 共 次 笔
    元 份 大写 小写 人民币 币种 销售机构 销售商 代销机构 管理人 托管人 委托人 受托人 持有人 联系人 联系电话 联系地址
    巴额赎回标志 失败原因 处理结果 返回代码 结果 状态 类别 分类 摘要 附件 签字 签章 盖章 分红方式 红利再投资
    现金分红 认购 申购 赎回 转换 转托管 开户 销户 撤单 冻结 解冻 强制赎回 巨额赎回 划款 划入账户 划出账户 清算 结算
    交收 到账日期 款项 用途 支行 分行 总行 营业部 总笔数 总份额 本期 上期 期初 期末 应收 应付 实收 实付 借方 贷方
    科目 投资者 投资金额 收益率 年化收益 业绩比较基准 风险等级 指令 通知书 确认书 对账单 申请表 登记表 明细表 汇总表
    清单 收据 回单
""".split()
PLACES = """
    北京 上海 广州 深圳 天津 重庆 杭州 南京 苏州 武汉 成都 西安 长沙 郑州 青岛 大连 厦门 宁波 福州 济南 合肥 昆明
    南昌 贵阳 南宁 海口 太原 石家庄 哈尔滨 长春 沈阳 兰州 西宁 银川 乌鲁木齐 拉萨 珠海 东莞 佛山 无锡 常州 温州 嘉兴
    烟台 潍坊 徐州
""".split()
BANKS = """
    中国工商银行 中国建设银行 中国农业银行 中国银行 交通银行 招商银行 中信银行 光大银行 民生银行 兴业银行 浦发银行
    平安银行 华夏银行 广发银行 邮政储蓄银行 招商证券 中信证券 国泰君安证券 海通证券 华泰证券 广发证券 国信证券
    银河证券 申万宏源 安信证券
""".split()
KINDS = """
    有限公司 股份有限公司 有限责任公司 股份有限公司北京分公司 集团有限公司 科技有限公司 基金管理有限公司
    资产管理有限公司 投资管理有限公司 证券投资基金 混合型证券投资基金 债券型基金 指数基金 私募基金 混合A 混合C 债券B
    货币A 分公司 事务所 贸易有限公司 管理中心 研究院 大学 医院 学校
""".split()
LATIN_LABELS = """
    From: To: Date: Fax: Tel: Email: E-mail: Page ID No. TOTAL Name VIP A股 H股 ETF LOF QDII FOF
""".split()
FUND_ENDINGS = ["混合A", "债券B", "", ")", "LOF", "300", "ETF"]
LABEL_ENDINGS = ["", "", "：", ":", "： ", ":", "(元)", "（元）", "(份)"]
LIST_MARKS = "* ** *** ※ 注： 备注： 1、 2. （一） (1) ① 一、".split()


class Writer:
    """Random texts. Every method draws from one generator, so the order of its calls is part of the recipe.

    Args:
      data: folder with charset.txt, groups.txt, words.xz and corpus.xz.
      seed: of the generator.
    """

    def __init__(self, data: Path, seed: int) -> None:
        self.random = random.Random(seed)
        self.pick = self.random.choice
        self.charset = Charset.from_file(data / "charset.txt")
        characters = self.charset.characters
        self.marks, self.common, self.rare = characters[:-HAN], characters[-HAN:-RARE], characters[-RARE:]
        in_charset = ([c for c in group if c in self.charset] for group in read_groups(data / "groups.txt"))
        self.groups = [group for group in in_charset if len(group) > 1]
        self.han_groups = [group for group in self.groups if all(ord(c) > FIRST_HAN for c in group)]
        self.alike = {c: [other for other in group if other != c] for group in self.han_groups for c in group}
        self.words, self.ends, total = [], [], 0.0
        with lzma.open(data / "words.xz", "rt", encoding="utf-8") as file:
            for line in file:
                word, times = line.split()
                total += float(times) ** SOFTENING
                self.words.append(word)
                self.ends.append(total)
        with lzma.open(data / "corpus.xz", "rt", encoding="utf-8") as file:
            self.corpus = file.read()

    def digits(self, count: int) -> str:
        return "".join(self.random.choices(DIGITS, k=count))

    def word(self) -> str:
        return self.words[bisect.bisect_left(self.ends, self.random.random() * self.ends[-1])]

    def natural(self, length: int, punctuation: float = 0.1) -> str:
        """Words by frequency, each followed by a sign with some probability."""
        text = ""
        while len(text) < length:
            text += self.word() + (self.pick(SIGNS) if self.random.random() < punctuation else "")
        return text[:length]

    def running(self, length: int) -> str:
        """A piece of one line of the corpus."""
        start = self.random.randrange(len(self.corpus) - 100)
        longest = max(self.corpus[start : start + length + 30].split("\n"), key=len)
        return longest[:length] or self.natural(length)

    def uniform(self, length: int) -> str:
        shares = (self.random.random() for _ in range(length))
        return "".join(
            self.pick(self.common if share < 0.6 else self.rare if share < 0.95 else self.marks) for share in shares
        )

    def lookalikes(self, length: int) -> str:
        """Members of groups of look-alikes among pieces of words."""
        text = ""
        share = self.pick((0.4, 0.7, 1.0))
        while len(text) < length:
            if self.random.random() < share:
                text += self.pick(self.pick(self.han_groups if self.random.random() < 0.9 else self.groups))
            else:
                text += self.natural(2, 0)
        return text[:length]

    def swapped(self, length: int) -> str:
        """Words with some characters exchanged for look-alikes, so that the language is no help in reading them."""
        text = list(self.natural(length, 0.05))
        for i, character in enumerate(text):
            if self.random.random() < 0.2 and (alike := self.alike.get(character)):
                text[i] = self.pick(alike)
        return "".join(text)

    def amount(self) -> str:
        randrange, digits = self.random.randrange, self.digits
        number = randrange(1, 10 ** randrange(1, 10))
        forms = [
            f"{number:,}.{digits(2)}",
            f"{number:,}.{digits(2)}",
            f"{number}.{digits(2)}",
            f"{number:,}",
            f"{number}",
            f"-{number:,}.{digits(2)}",
            f"￥{number:,}.{digits(2)}",
            f"¥{number}.{digits(2)}",
            f"0.{digits(randrange(1, 7))}",
            f"{randrange(0, 100)}.{digits(randrange(1, 5))}%",
            f"{randrange(0, 10)}.{digits(4)}",
            f"{number}元",
            f"{number:,}.{digits(2)}元",
            f"{randrange(100)}",
            f"{randrange(10)}",
            f"{digits(1)}.{digits(2)}",
        ]
        return self.pick(forms)

    def date(self) -> str:
        randrange, pick = self.random.randrange, self.pick
        month, day = randrange(1, 13), randrange(1, 32)
        year = pick(["20", "20", "19"]) + self.digits(2)
        clock = f"{randrange(24):02}:{randrange(60):02}" + pick(["", f":{randrange(60):02}"])
        iso = f"{year}-{month:02}-{day:02}"
        digits = f"{year}{month:02}{day:02}"
        forms = [
            iso,
            iso,
            digits,
            digits,
            f"{year}年{month}月{day}日",
            f"{year}年{month:02}月{day:02}日",
            f"{year}/{month}/{day}",
            f"{year}/{month:02}/{day:02}",
            f"{year}.{month}.{day}",
            f"{month}月{day}日",
            f"{year}年",
            f"{year}",
            f"{year} {month:02} {day:02}",
            clock,
            f"{iso} {clock}",
            f"{year}年{month}月",
        ]
        return pick(forms)

    def capital(self) -> str:
        """An amount in the capital numerals of banks."""
        pick = self.pick
        # The result is unused; dropping the draws would change the texts of every seed.
        for _ in self.random.sample(range(3), self.random.randrange(0, 4)):
            pick(CAPITAL_DIGITS[1:])
        units = ["拾", "万", "仟", "佰", "拾"][self.random.randrange(0, 5) :]
        text = "".join(pick(CAPITAL_DIGITS[1:]) + unit for unit in units) + pick(CAPITAL_DIGITS) + "元"
        return text + pick(["整", "正", pick(CAPITAL_DIGITS) + "角" + pick(CAPITAL_DIGITS[1:]) + "分", ""])

    def code(self) -> str:
        """Numbers of accounts, telephones, invoices and the like."""
        choices, randrange, pick, digits = self.random.choices, self.random.randrange, self.pick, self.digits
        upper = LATIN.upper()
        forms = [*map(digits, (randrange(1, 22), 6, 6, 1, 2, 3, 4))]
        forms += [
            "".join(choices(upper, k=randrange(1, 4))) + digits(randrange(2, 8)),
            "".join(choices(LATIN + upper + DIGITS, k=randrange(2, 14))),
            f"({digits(randrange(1, 4))})",
            f"（{digits(randrange(1, 3))}）",
            f"{digits(3)}-{digits(8)}",
            f"1{digits(10)}",
            f"{digits(4)}-{digits(7)}",
            f"NO.{digits(6)}",
            f"No.{digits(8)}",
            f"{digits(17)}X",
            f"{digits(4)} {digits(4)} {digits(4)} {digits(4)}",
            pick(upper),
            pick("OIlZSB0158o"),
        ]
        return pick(forms)

    def latin_word(self) -> str:
        letters = self.random.choices(BY_FREQUENCY, weights=FREQUENCIES, k=self.random.randrange(1, 9))
        return "".join(letters)

    def latin(self) -> str:
        """Addresses of mail and web pages, abbreviations, words."""
        pick, word = self.pick, self.latin_word
        share = self.random.random()
        if share < 0.25:
            name = word() + pick(["", self.digits(2), "_" + word(), "." + word()])
            return f"{name}@{word()}.{pick(['com', 'com.cn', 'cn', 'net', 'org'])}"
        if share < 0.4:
            start = pick(["www.", "http://www.", "https://", ""])
            return f"{start}{word()}.{pick(['com', 'com.cn', 'cn', 'net'])}{pick(['', '/' + word()])}"
        if share < 0.55:
            start = pick(LATIN_LABELS)
            return start + pick(["", " " + word(), self.code()])
        style = pick([str.capitalize, str.upper, str.lower, str.capitalize])
        return " ".join(style(word()) for _ in range(self.random.randrange(1, 5)))

    def company(self) -> str:
        """Names of companies, banks and funds."""
        pick, natural, randrange = self.pick, self.natural, self.random.randrange
        forms = [
            pick(PLACES) + natural(randrange(2, 5), 0) + pick(KINDS),
            natural(randrange(2, 5), 0) + pick(KINDS),
            pick(BANKS) + pick(PLACES) + pick(["分行", "支行", "市分行", "营业部", natural(2, 0) + "支行"]),
            pick(BANKS),
            pick(BANKS) + "股份有限公司" + pick(["", pick(PLACES) + "分行"]),
            "".join([self.code(), pick("/ -("), natural(randrange(2, 6), 0), pick(FUND_ENDINGS)]),
        ]
        return pick(forms)

    def label(self) -> str:
        return self.pick(LABELS) if self.random.random() < 0.6 else self.natural(self.random.randrange(2, 7), 0)

    def phrase(self) -> str:
        return self.natural(self.random.randrange(2, 12), 0.03)

    def any_label(self) -> str:
        return self.pick(LABELS)

    def value(self) -> str:
        numbers = [self.amount, self.date, self.code]
        words = [self.company, self.capital, self.phrase, self.any_label, self.latin]
        return self.pick(numbers + words)()

    def field(self) -> str:
        """A label, a label with its value, or another part of a form."""
        pick, randrange, label, value = self.pick, self.random.randrange, self.label, self.value
        share = self.random.random()
        if share < 0.25:
            return label() + pick([*LABEL_ENDINGS, "(" + pick(LABELS) + ")", "（" + pick(LABELS) + "）"])
        if share < 0.7:
            return label() + pick(["：", "：", ":", ": ", "： ", "/", " "]) + value()
        if share < 0.8:
            return label() + pick("：:") + value() + pick("；; ，,") + label() + pick("：:") + value()
        if share < 0.88:
            labels = "、".join(pick(LABELS) for _ in range(randrange(2, 5)))
            return labels + pick(["", "：" + pick(["元", "份", "笔", "%"])])
        if share < 0.93:
            return pick("（(") + pick([label(), self.code(), value()]) + pick("）)")
        if share < 0.96:
            start = pick([*LIST_MARKS, "第" + pick("一二三四五六七八九十") + "条 "])
            return start + self.running(randrange(3, 30))
        dashes = pick(["——", "-", "--", "……", "...", "~", "—"])
        return dashes.join(
            pick(pick(self.groups)) if self.random.random() < 0.4 else pick(self.common) for _ in range(randrange(2, 7))
        )

    def punctuated(self, length: int) -> str:
        """Look-alikes among small signs, which recognisers drop most often."""
        return "".join(
            self.pick(self.pick(self.han_groups)) if self.random.random() < 0.5 else self.pick("，。：；、,.:;()（）-/")
            for _ in range(length)
        )

    def text(self, shortest: int, longest: int) -> str:
        length, share = self.random.randint(shortest, longest), self.random.random()
        if share < 0.16:
            text = self.running(length)
        elif share < 0.26:
            text = self.natural(length)
        elif share < 0.34:
            text = self.swapped(length)
        elif share < 0.56:
            text = self.lookalikes(length)
        elif share < 0.67:
            text = self.uniform(length)
        elif share < 0.78:
            text = self.value()
        elif share < 0.98:
            text = self.field()
        else:
            text = self.punctuated(length)
        return text[:longest].strip() or self.natural(shortest)

    def ids(self, shortest: int, longest: int) -> list[int]:
        """A text as class ids, without characters outside the charset; never empty."""
        text = spaced("".join(c for c in self.text(shortest, longest) if c in self.charset))
        return self.charset.encode(text) or [1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with charset.txt, groups.txt, words.xz and corpus.xz")
    parser.add_argument("out", type=Path, help="folder for texts-SEED.npz")
    parser.add_argument("--count", type=int, default=160_000, help="number of texts (default: 160000)")
    parser.add_argument("--seed", type=int, default=0, help="of the random generator (default: 0)")
    parser.add_argument("--show", type=int, default=0, metavar="N", help="print the first N texts (default: none)")
    args = parser.parse_args()
    writer = Writer(args.data, args.seed)
    rows, lengths = np.zeros((args.count, LONGEST), np.uint16), np.zeros(args.count, np.uint8)
    for i in range(args.count):
        ids = writer.ids(*SPANS[CYCLE[i % len(CYCLE)]])
        rows[i, : len(ids)], lengths[i] = ids, len(ids)
    args.out.mkdir(parents=True, exist_ok=True)
    # Renamed when complete: train.py waits for the file to appear.
    part = args.out / f"texts-{args.seed}.part.npz"
    np.savez(part, rows=rows, lengths=lengths)
    os.replace(part, args.out / f"texts-{args.seed}.npz")
    for row, length in zip(rows[: args.show], lengths, strict=False):
        print(writer.charset.decode(row[:length]))


if __name__ == "__main__":
    main()
